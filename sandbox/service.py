"""The service put together: routes, refusals, limits, audit log, faults and background worker."""

from collections.abc import AsyncGenerator
from contextlib import asynccontextmanager

from fastapi import FastAPI
from fastapi.exceptions import RequestValidationError
from starlette.exceptions import HTTPException
from starlette.types import ASGIApp

from nudgescribe import __version__
from sandbox.api import admin, admin_page, auth, campaigns, customers, messages, workspaces
from sandbox.context import open_context
from sandbox.engine.jobs import Worker
from sandbox.errors import Refusal, refuse, refuse_body, refuse_call
from sandbox.middleware.audit import AuditLog
from sandbox.middleware.body_limit import BodyLimit
from sandbox.middleware.faults import Faults, FaultyApp
from sandbox.middleware.in_flight import CountedApp, Traffic
from sandbox.openapi import describe
from sandbox.settings import Settings


class Service(FastAPI):
    """Faults come before everything: only there is the connection within reach. Only the traffic is
    counted outside of them, since a call they delay is on its way, too.
    """

    def build_middleware_stack(self) -> ASGIApp:
        faulty = FaultyApp(super().build_middleware_stack(), self.state.faults)
        return CountedApp(faulty, self.state.traffic)


def create_app(settings: Settings) -> Service:
    """The whole API over one data folder; the background worker runs while the app does."""
    context = open_context(settings)
    worker = Worker(context)

    @asynccontextmanager
    async def lifespan(app: FastAPI) -> AsyncGenerator[None, None]:
        worker.start()
        yield
        worker.stop()
        context.store.close()

    app = Service(title="Nudgescribe sandbox", version=__version__, lifespan=lifespan)
    app.state.context = context
    app.state.faults = Faults()
    app.state.traffic = Traffic()
    app.add_exception_handler(Refusal, refuse)
    app.add_exception_handler(HTTPException, refuse_call)
    app.add_exception_handler(RequestValidationError, refuse_body)
    for part in (auth, workspaces, customers, campaigns, messages, admin, admin_page):
        app.include_router(part.router)
    app.include_router(messages.links)
    # The last one added sees a call first.
    app.add_middleware(BodyLimit, settings=settings)
    app.add_middleware(AuditLog, file=settings.audit_file)
    app.openapi = lambda: describe(app)
    return app

"""The service put together: routes, errors, limits, audit log, faults and background worker."""

from collections.abc import AsyncGenerator
from contextlib import asynccontextmanager
from typing import Any

from fastapi import FastAPI
from fastapi.exceptions import RequestValidationError
from fastapi.routing import APIRoute
from pydantic.alias_generators import to_camel
from starlette.exceptions import HTTPException
from starlette.types import ASGIApp

from nudgescribe import __version__
from sandbox.api import admin, admin_page, auth, campaigns, customers, messages, workspaces
from sandbox.api.security import require_together
from sandbox.context import open_context
from sandbox.engine.jobs import Worker
from sandbox.errors import COMMON_ERRORS, handle_http_error, handle_validation_error
from sandbox.middleware.audit import AuditLog
from sandbox.middleware.body_limit import BodyLimit
from sandbox.middleware.envelope import EnvelopeChanger
from sandbox.middleware.failures import FailureAnswers
from sandbox.middleware.faults import FaultInjector, Faults
from sandbox.middleware.in_flight import InFlightCounter, InFlightCounts
from sandbox.settings import Settings

DESCRIPTION = """\
The Nudgescribe client API as the sandbox serves it. Names and fields that Nudgescribe does not
publish are Nudgeflow's reading of the API; they come from `nudgescribe/contract.py`."""
SERVERS = [
    {"url": "/", "description": "The sandbox that serves this document."},
    {"url": "https://client-api.nudgescribe.com", "description": "Nudgescribe; no /sandbox there."},
]
TAGS = {
    "Authentication": "Sign in for two tokens, and renew them.",
    "Workspace fields": "What a workspace knows of its customers: names, types and formats.",
    "Customer groups": "Named sets of customers, which campaigns and their reruns are for.",
    "Customers": "Upload a group's customers, read them back, delete them.",
    "Campaigns and messages": "Find campaigns, publish their messages and fetch them as files.",
    "Reruns": "Run a Published campaign again for another customer group, and follow its runs.",
    "Sandbox": "Without sign-in: what people do in Nudgescribe's platform, and faults to rehearse.",
}
ROUTERS = (
    auth.router,
    workspaces.router,
    workspaces.group_router,
    customers.router,
    campaigns.router,
    campaigns.rerun_router,
    messages.router,
    messages.links,
    admin.router,
    admin_page.router,
)


class Service(FastAPI):
    """FastAPI with two layers around its own middleware, and a document of what is its own."""

    def build_middleware_stack(self) -> ASGIApp:
        """Put the faults outermost, since only there is the connection within reach.

        Calls in flight are counted outside of them, so that one they delay is counted, too.
        """
        faulty = FaultInjector(super().build_middleware_stack(), self.state.faults)
        return InFlightCounter(faulty, self.state.in_flight)

    def openapi(self) -> dict[str, Any]:
        """Return the OpenAPI document, corrected in what FastAPI cannot be told.

        A malformed body is a 400 or 401 here, never a 422, and security schemes go together.
        """
        document = super().openapi()
        for operations in document["paths"].values():
            for operation in operations.values():
                operation["responses"].pop("422", None)
                if "security" in operation:
                    operation["security"] = require_together(operation["security"])
        for name in ("HTTPValidationError", "ValidationError"):
            document["components"]["schemas"].pop(name, None)
        return document


def _operation_id(route: APIRoute) -> str:
    return to_camel(route.name)


def create_app(settings: Settings) -> Service:
    """Return the whole API over one data folder; its background worker runs while the app does."""
    context = open_context(settings)
    worker = Worker(context)

    @asynccontextmanager
    async def lifespan(app: FastAPI) -> AsyncGenerator[None, None]:
        worker.start()
        yield
        worker.stop()
        context.store.close()

    app = Service(
        title="Nudgescribe sandbox",
        version=__version__,
        description=DESCRIPTION,
        contact={"name": "Nudgeflow"},
        license_info={"name": "Apache License 2.0", "identifier": "Apache-2.0"},
        servers=SERVERS,
        openapi_tags=[{"name": name, "description": text} for name, text in TAGS.items()],
        generate_unique_id_function=_operation_id,
        responses=COMMON_ERRORS,
        lifespan=lifespan,
    )
    app.state.context = context
    app.state.faults = Faults()
    app.state.in_flight = InFlightCounts()
    app.add_exception_handler(HTTPException, handle_http_error)
    app.add_exception_handler(RequestValidationError, handle_validation_error)
    for router in ROUTERS:
        app.include_router(router)
    # The last one added sees a call first.
    if settings.envelope != "object":
        app.add_middleware(EnvelopeChanger, envelope=settings.envelope)
    app.add_middleware(BodyLimit, settings=settings)
    app.add_middleware(AuditLog, file=settings.audit_file)
    app.add_middleware(FailureAnswers)
    return app

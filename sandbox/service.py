"""The service put together: routes, refusals, keys, store and background worker."""

from collections.abc import AsyncGenerator
from contextlib import asynccontextmanager
from pathlib import Path

from fastapi import FastAPI
from fastapi.exceptions import RequestValidationError

from sandbox import authentication, campaigns, control, customers, workspaces
from sandbox.faults import Refusal, refuse, refuse_body
from sandbox.jobs import Worker
from sandbox.settings import Settings, load_keys
from sandbox.store import Store


def open_store(data: Path) -> Store:
    """The database of a data folder, made on first use."""
    data.mkdir(mode=0o700, parents=True, exist_ok=True)
    return Store(data / "sandbox.db")


def create_app(settings: Settings) -> FastAPI:
    """The whole API over one data folder; the background worker runs while the app does."""
    store = open_store(settings.data)
    worker = Worker(store, settings)

    @asynccontextmanager
    async def lifespan(app: FastAPI) -> AsyncGenerator[None, None]:
        worker.start()
        yield
        worker.stop()
        store.close()

    app = FastAPI(title="Nudgescribe sandbox", lifespan=lifespan)
    app.state.settings = settings
    app.state.keys = load_keys(settings.data)
    app.state.store = store
    app.add_exception_handler(Refusal, refuse)
    app.add_exception_handler(RequestValidationError, refuse_body)
    for part in (authentication, workspaces, customers, campaigns, control):
        app.include_router(part.router)
    app.include_router(campaigns.links)
    return app

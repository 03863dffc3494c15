"""What every part of the service works with."""

from dataclasses import dataclass

from fastapi import Request

from sandbox.data.models import Store
from sandbox.data.page_files import Pages
from sandbox.settings import Keys, Settings
from sandbox.writing.writers import FromChat, FromTemplate, Generator


@dataclass(frozen=True)
class Context:
    settings: Settings
    keys: Keys
    store: Store
    pages: Pages
    generator: Generator


def open_context(settings: Settings) -> Context:
    """The service's parts for these settings; the database is made on first use."""
    keys = settings.keys  # makes the data folder
    generator = FromChat(settings.chat) if settings.chat else FromTemplate()
    return Context(
        settings, keys, Store(settings.database_url), Pages(settings.exports_url), generator
    )


def context_of(request: Request) -> Context:
    return request.app.state.context

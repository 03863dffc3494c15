"""The CSV export of a run: its pages, each written as a whole."""

from collections.abc import Iterable, Iterator

import polars as pl

from nudgescribe import rfc4180
from nudgescribe.contract import MessageRow
from sandbox.context import Context
from sandbox.data.models import Campaign, Group
from sandbox.data.page_files import Pages, page_name
from sandbox.data.profiles import Profiles
from sandbox.engine.reruns import current_messages, current_run
from sandbox.errors import JobFailed
from sandbox.writing.templates import Messages

EXPORT = "export"
PAGE_ROWS_AS_JSON = 1000


def work(context: Context, campaign_id: str, run_number: int) -> None:
    """Writes the pages of a run and removes those an earlier export had beyond them."""
    written: set[str] = set()
    with context.store.read() as session:
        campaign = session.get_one(Campaign, campaign_id)
        if campaign.current_run != run_number:
            raise JobFailed("The campaign has moved on to another run.")
        texts = [(each.segment, each.text) for each in current_messages(session, campaign)]
        messages = Messages(campaign.variables, texts)
        group_id = current_run(session, campaign).group_id
        if session.get(Group, group_id) is None:
            raise JobFailed("The customer group is gone.")
        profiles = Profiles(session, context.keys, group_id)
        customers = profiles.frames(profiles.columns)
        for content in _contents(messages, customers, profiles.key, context.settings.rows_per_file):
            name = page_name(len(written))
            context.pages.write(campaign_id, run_number, name, content)
            written.add(name)
    for name in context.pages.names(campaign_id, run_number):
        if name not in written:
            context.pages.remove(campaign_id, run_number, name)


def first_rows(pages: Pages, campaign_id: str, run_number: int, name: str) -> list[MessageRow]:
    """A page's first rows, as many as the JSON export gives."""
    page = rfc4180.read(pages.read(campaign_id, run_number, name))
    return [MessageRow.model_validate(row) for row in page.head(PAGE_ROWS_AS_JSON).rows(named=True)]


def _contents(
    messages: Messages, customers: Iterable[pl.DataFrame], key: str, rows: int
) -> Iterator[bytes]:
    """The pages' bytes: `rows` messages each, the last one fewer."""
    parts: list[bytes] = []
    left = rows
    for frame in customers:
        selected = messages.select(frame)
        while not selected.is_empty():
            some, selected = selected.head(left), selected.slice(left)
            parts.append(rfc4180.write(messages.write(some, key), header=not parts))
            left -= some.height
            if not left:
                yield b"".join(parts)
                parts, left = [], rows
    if parts:
        yield b"".join(parts)

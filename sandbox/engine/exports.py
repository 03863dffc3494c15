"""The CSV export of a run, page by page."""

from collections.abc import Iterable, Iterator

import polars as pl
from sqlalchemy.orm import Session

from nudgescribe import rfc4180
from nudgescribe.contract import MESSAGE_COLUMNS, MessageRow
from sandbox.context import Context
from sandbox.data.lookup import account_id_of
from sandbox.data.models import Campaign, Group
from sandbox.data.page_files import RunFolder, page_name
from sandbox.data.profiles import Profiles
from sandbox.engine.reruns import current_messages, current_run
from sandbox.errors import JobFailed
from sandbox.settings import Keys
from sandbox.writing.templates import MessageRenderer

EXPORT = "export"
JSON_ROWS = 1000
"""The rows of a page that the JSON export has at most, as Nudgescribe's pages say."""


def run_job(context: Context, campaign_id: str, run_number: int) -> None:
    """Write the pages of a run and delete pages that only an earlier export had.

    Raises JobFailed if the run is no longer current or its customer group is gone.
    """
    written: set[str] = set()
    with context.store.read() as session:
        campaign = session.get_one(Campaign, campaign_id)
        if campaign.current_run != run_number:
            raise JobFailed("The campaign has moved on to another run.")
        texts = [(each.segment, each.text) for each in current_messages(session, campaign)]
        renderer = MessageRenderer(campaign.variables, texts)
        group_id = current_run(session, campaign).group_id
        if session.get(Group, group_id) is None:
            raise JobFailed("The customer group is gone.")
        profiles = Profiles(session, context.keys, group_id)
        customers = profiles.frames(profiles.columns)
        folder = RunFolder(account_id_of(session, campaign), campaign_id, run_number)
        for content in _page_contents(
            renderer, customers, profiles.key, context.settings.rows_per_file
        ):
            name = page_name(len(written))
            context.page_files.write(folder, name, content)
            written.add(name)
    for name in context.page_files.names(folder):
        if name not in written:
            context.page_files.remove(folder, name)


def count_messages(session: Session, keys: Keys, campaign: Campaign) -> int:
    """Count the messages that an export of the current run has: one a customer of its segments."""
    # Nothing is rendered, so no text is parsed.
    texts = [(each.segment, "") for each in current_messages(session, campaign)]
    renderer = MessageRenderer(campaign.variables, texts)
    profiles = Profiles(session, keys, current_run(session, campaign).group_id)
    return sum(renderer.select(each).height for each in profiles.frames(campaign.variables))


def parse_page(content: bytes) -> pl.DataFrame:
    """Return the rows of a page. Raises MalformedCsv, also if its columns are not an export's."""
    page = rfc4180.read(content)
    if tuple(page.columns) != MESSAGE_COLUMNS:
        raise rfc4180.MalformedCsv("The page has other columns than an export.")
    return page


def first_rows(page: pl.DataFrame) -> list[MessageRow]:
    """Return the rows of a page that the JSON export has."""
    return [MessageRow.model_validate(row) for row in page.head(JSON_ROWS).rows(named=True)]


def _page_contents(
    renderer: MessageRenderer, customers: Iterable[pl.DataFrame], key: str, rows: int
) -> Iterator[bytes]:
    """Yield the bytes of each page: `rows` messages, fewer in the last one."""
    csv: list[bytes] = []
    left = rows
    for frame in customers:
        selected = renderer.select(frame)
        while not selected.is_empty():
            fitting, selected = selected.head(left), selected.slice(left)
            csv.append(rfc4180.write(renderer.render(fitting, key), header=not csv))
            left -= fitting.height
            if not left:
                yield b"".join(csv)
                csv, left = [], rows
    if csv:
        yield b"".join(csv)

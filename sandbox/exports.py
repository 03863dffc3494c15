"""The CSV export: the current run's pages in the campaign's folder, past runs' in sub-folders."""

import os
from pathlib import Path

import polars as pl

from nudgescribe import fields, rfc4180, segments
from nudgescribe.contract import MESSAGE_COLUMNS, MessageRow
from sandbox.composing import personalise
from sandbox.customers import profiles
from sandbox.reruns import JobFailed, current_messages, current_run
from sandbox.scope import fields_of
from sandbox.settings import Settings
from sandbox.store import Campaign, Store

PAGE_ROWS_AS_JSON = 1000


def folder(settings: Settings, campaign_id: str, past_run: int | None = None) -> Path:
    """Where a campaign's pages lie: the current run's, or a past run's."""
    place = settings.exports / campaign_id
    return place if past_run is None else place / f"run-{past_run}"


def pages(place: Path) -> list[Path]:
    return sorted(place.glob("*.csv"))


def put_past_pages_away(settings: Settings, campaign_id: str, current: int) -> None:
    """Moves pages of an earlier run out of the campaign's folder, into that run's own."""
    place = folder(settings, campaign_id)
    mark = place / "run"
    if not mark.exists() or mark.read_text() == str(current):
        return
    past = folder(settings, campaign_id, int(mark.read_text()))
    past.mkdir(exist_ok=True)
    for page in pages(place):
        page.replace(past / page.name)
    mark.unlink()


def work(store: Store, settings: Settings, campaign_id: str, run_number: int) -> None:
    """Writes the pages of a run, each under its name only when whole."""
    place = folder(settings, campaign_id)
    written: set[str] = set()
    with store.read() as session:
        campaign = session.get_one(Campaign, campaign_id)
        if campaign.current_run != run_number:
            raise JobFailed("The campaign has moved on to another run.")
        place.mkdir(parents=True, exist_ok=True)
        (place / "run").write_text(str(run_number))
        rules = fields_of(session, campaign.workspace_id)
        key, columns = fields.key_of(rules), [field.field_name for field in rules]
        texts = {m.segment_key: m.text for m in current_messages(session, campaign)}
        group_id = current_run(session, campaign).group_id
        for batch in profiles(session, group_id, columns, settings.rows_per_file):
            frame = _messages(batch, key, campaign.variables, texts)
            name = f"{len(written):05d}.csv"
            _write_whole(place / name, rfc4180.write(frame))
            written.add(name)
    for page in pages(place):
        if page.name not in written:
            page.unlink()


def first_rows(page: Path) -> list[MessageRow]:
    """A page's first rows, as many as the JSON export gives."""
    rows = rfc4180.read(page.read_bytes()).head(PAGE_ROWS_AS_JSON).rows(named=True)
    return [MessageRow.model_validate(row) for row in rows]


def _messages(
    batch: pl.DataFrame, key: str, variables: list[str], texts: dict[str, str]
) -> pl.DataFrame:
    """The export's rows; who joined a segment after the run began is not part of it."""
    known: list[tuple[str, dict[str, str | None]]] = []
    values = batch.select(segments.columns(variables)).rows(named=True)
    for profile, segment in zip(batch.rows(named=True), values, strict=True):
        if (name := segments.key(segment)) in texts:
            known.append((name, profile))
    ids = [profile[key] for _, profile in known]
    return pl.DataFrame(dict(zip(MESSAGE_COLUMNS, (ids, personalise(texts, known)), strict=True)))


def _write_whole(target: Path, content: bytes) -> None:
    draft = target.with_suffix(".part")
    draft.write_bytes(content)
    os.replace(draft, target)

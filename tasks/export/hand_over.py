"""What a run changed is handed over: as a file in the lake, and to a table of a database."""

from __future__ import annotations

from collections.abc import Iterable

from prefect import task
from prefect.logging import get_run_logger

from blocks import DataLake, SqlTable
from blocks.storage import reader
from blocks.storage.files import LakeError
from blocks.storage.handover import Changes, HandoverFormat, handover_file, write_changes
from blocks.storage.manifest import Manifest
from nudgescribe.lazy import pl
from tasks.export.run_diff import run_before
from tasks.policies import RETRIED


@task(**RETRIED)
def check_table(table: SqlTable) -> None:
    """Check, before anything is changed, that messages can be copied to a table.

    Raises TableUnusable, TableUnavailable, ExtraMissing.
    """
    table.check()


@task(**RETRIED)
def write_handover(
    lake: DataLake, campaign_id: str, run_number: int, format_: HandoverFormat
) -> str:
    """Write who was added, changed and removed since the run before, with the messages, as a file
    of the lake, unless it is there; return its path. Of the first run in the lake all are added.

    Raises PartUnreadable, ErasureKeyWrong.
    """
    files, run = lake.files, lake.manifest(campaign_id, run_number)
    assert run
    path = handover_file(run, format_)
    if files.exists(path):
        return path
    since = run_before(lake, campaign_id, run_number)
    before = since and lake.manifest(campaign_id, since)
    rows: Iterable[pl.DataFrame] = reader.read_frames(files, before) if before else ()
    changes = Changes(files, run, rows)
    write_changes(files, changes, run, format_, lake.tombstones())
    get_run_logger().info(
        "Handed over run %s: %s added, %s changed, %s removed, in %s",
        run_number,
        *(f"{changes.counts[each]:,}" for each in ("added", "changed", "removed")),
        files.url(path),
    )
    return path


@task(**RETRIED)
def copy_messages(lake: DataLake, campaign_id: str, table: SqlTable) -> dict[str, int]:
    """Make a campaign's rows in a table those of its newest run in the lake; return how many
    customers were added, changed and removed.

    Raises TableUnusable, TableUnavailable, ExtraMissing, PartUnreadable, LakeError.
    """
    copied, counts = None, dict[str, int]()
    # Another flow run may have copied a newer run before this one was written over it.
    while (run := _newest(lake, campaign_id)) != copied:
        counts, copied = table.replace(lake.files, run), run
    get_run_logger().info(
        "Copied run %s to %s: %s added, %s changed, %s removed",
        run.run_number,
        table.block_slug,
        *(f"{each:,}" for each in counts.values()),
    )
    return counts


def _newest(lake: DataLake, campaign_id: str) -> Manifest:
    newest = reader.find_newest(lake.files, campaign_id)
    run = newest and lake.manifest(campaign_id, newest.run_number)
    if not run:
        raise LakeError(f"Campaign {campaign_id} has no run in the lake.")
    return run

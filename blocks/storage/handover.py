"""What a run changed, for others to pick up: a file a run, with whole messages."""

from __future__ import annotations

import re
from collections.abc import Callable, Generator, Iterable, Iterator
from contextlib import contextmanager
from itertools import chain
from pathlib import Path
from typing import Literal

from blocks.storage import reader
from blocks.storage.files import Files
from blocks.storage.manifest import Manifest, campaign_partition
from blocks.storage.parquet import ParquetSink
from blocks.storage.scratch import scratch_folder
from blocks.storage.tombstones import Tombstones, leave_out_erased
from nudgescribe.contract import MESSAGE_COLUMNS
from nudgescribe.identifiers import Counts, compare, no_ids
from nudgescribe.lazy import np, pl

HANDOVER = "handover"
HandoverFormat = Literal["csv", "parquet"]
ID, MESSAGE = MESSAGE_COLUMNS
CHANGE = "change"
_FILE = re.compile(r"changes-\d{5}\.(csv|parquet)")
_ADDED, _CHANGED = 1, 2
_KINDS = {"added": _ADDED, "changed": _CHANGED}


def handover_folder(campaign_id: str, run_number: int) -> str:
    """Return the folder of what a run changed."""
    return f"{HANDOVER}/{campaign_partition(campaign_id)}/run_number={run_number}"


def handover_file(run: Manifest, format_: HandoverFormat) -> str:
    """Return the path of what a run changed."""
    folder = handover_folder(run.campaign_id, run.run_number)
    return f"{folder}/changes-{run.generation:05d}.{format_}"


class Changes:
    """What makes a run of the messages `before`, which come as frames of customer_id and message;
    `counts` has the numbers.
    """

    def __init__(self, files: Files, run: Manifest, before: Iterable[pl.DataFrame]) -> None:
        self._files, self._run = files, run
        self._kinds = np.zeros(run.rows, np.uint8)
        self._removed: list[pl.Series] = [no_ids()]
        self.counts = Counts()
        after = reader.read_frames(files, run)
        with scratch_folder("the changes of a run") as folder:
            for share in compare(_hashed(before), _hashed(after), folder):
                self.counts.add(share)
                for change, kind in _KINDS.items():
                    rows = share.filter(pl.col(CHANGE) == change)["row"]
                    self._kinds[rows.to_numpy()] = kind
                self._removed.append(share.filter(pl.col(CHANGE) == "removed")["id"])

    def removed(self) -> pl.Series:
        """Return who has no message in the run any more."""
        return pl.concat(self._removed)

    def written(self) -> Iterator[pl.DataFrame]:
        """Yield customer_id, change and message of those added and changed."""
        first = 0
        for frame in reader.read_frames(self._files, self._run):
            kinds = pl.Series(CHANGE, self._kinds[first : first + frame.height])
            first += frame.height
            change = pl.when(pl.col(CHANGE) == _ADDED).then(pl.lit("added"))
            yield (
                frame.with_columns(kinds)
                .filter(pl.col(CHANGE) != 0)
                .select(ID, change.otherwise(pl.lit("changed")).alias(CHANGE), MESSAGE)
            )


def write_changes(
    files: Files,
    changes: Changes,
    run: Manifest,
    format_: HandoverFormat,
    tombstones: Tombstones | None = None,
) -> str:
    """Write the file of what a run changed, in place of those of other formats and of earlier
    generations; return its path. Those removed have no message, and come last. Customers who were
    erased since the run was written are left out.
    """
    path = handover_file(run, format_)
    removed = changes.removed().cast(pl.String).alias(ID).to_frame()
    gone = removed.select(
        ID, pl.lit("removed").alias(CHANGE), pl.lit(None, pl.String).alias(MESSAGE)
    )
    with files.new_file(path) as file, writer(file, format_) as write:
        for frame in leave_out_erased(tombstones, chain(changes.written(), [gone]), ID):
            write(frame)
    folder, _, name = path.rpartition("/")
    for other in files.list_names(folder):
        if _FILE.fullmatch(other) and other != name:
            files.remove(f"{folder}/{other}")
    return path


@contextmanager
def writer(file: Path, format_: HandoverFormat) -> Generator[Callable[[pl.DataFrame], None]]:
    """Yield what writes frames of customer_id, change and message to a file of this format."""
    columns = pl.Schema(dict.fromkeys([ID, CHANGE, MESSAGE], pl.String()))
    if format_ == "parquet":
        with ParquetSink(file, columns) as sink:
            yield sink.write
        return
    with file.open("wb") as csv:
        pl.DataFrame(schema=columns).write_csv(csv)
        yield lambda frame: frame.write_csv(csv, include_header=False)


def _hashed(frames: Iterable[pl.DataFrame]) -> Iterator[pl.DataFrame]:
    hashed = pl.col(ID).cast(pl.String).alias("id"), pl.col(MESSAGE).hash().alias("content")
    return (frame.select(hashed) for frame in frames)

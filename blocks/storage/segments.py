"""The segments of runs in the lake: their messages' texts, and which customer is in which.

Two Parquet files beside each other, named after the generation of the run's manifest that they
belong to. They are written after it, so a run may lack them for a moment.
"""

from __future__ import annotations

import re
from collections.abc import Iterable, Sequence
from typing import Literal

from blocks.storage.errors import Damaged
from blocks.storage.files import Files, LakeError, NotInLake
from blocks.storage.manifest import Manifest, campaign_partition
from blocks.storage.parquet import ParquetSink
from nudgescribe import __version__
from nudgescribe.lazy import pl

SEGMENTS = "segments"
SCHEMA_VERSION = 1
Kind = Literal["segments", "members"]
KINDS: tuple[Kind, ...] = ("segments", "members")
_FILE = re.compile(r"(segments|members)-(\d{5})\.parquet")


class SegmentsDamaged(Damaged):
    """A file of a run's segments or their members cannot be read."""

    advice = "Restore it from a backup, or remove it and export the run again."


class SegmentsMissing(LakeError):
    """The lake has a run, but not its segments or their members."""

    advice = (
        "Export the run with export-messages, which adds them; members need the account's profile "
        "key and the run's customer group."
    )


def segments_folder(campaign_id: str, run_number: int) -> str:
    """Return the folder of a run's segments."""
    return f"{SEGMENTS}/{campaign_partition(campaign_id)}/run_number={run_number}"


def segments_file(run: Manifest, kind: Kind) -> str:
    """Return the path of a run's segments, or of their members."""
    folder = segments_folder(run.campaign_id, run.run_number)
    return f"{folder}/{kind}-{run.generation:05d}.parquet"


def segment_columns(kind: Kind) -> pl.Schema:
    """Return the columns of segments or members; new ones go to the end."""
    text = pl.String()
    if kind == "members":
        return pl.Schema({"customer_id": text, "segment_id": text})
    names = ["segment_id", "segment", "message_id", "message", "review_status", "approval_stage"]
    return pl.Schema({**dict.fromkeys(names, text), "archived": pl.Boolean()})


def write_segments(files: Files, run: Manifest, kind: Kind, frames: Iterable[pl.DataFrame]) -> None:
    """Write a run's segments or members, members for their owner only, and remove those of earlier
    generations.
    """
    path = segments_file(run, kind)
    with (
        files.new_file(path, private=kind == "members") as file,
        ParquetSink(file, segment_columns(kind)) as sink,
    ):
        sink.annotate(b"nudgeflow", __version__.encode())
        sink.annotate(b"schema_version", str(SCHEMA_VERSION).encode())
        for frame in frames:
            sink.write(frame)
    remove_older_segments(files, run, (kind,))


def carry_segments(files: Files, before: Manifest, after: Manifest) -> None:
    """Copy a run's segments and members for its next manifest, which is not there yet."""
    for kind in KINDS:
        path = segments_file(before, kind)
        if files.exists(path):
            with files.new_file(segments_file(after, kind), private=kind == "members") as file:
                files.get(path, file)


def remove_older_segments(files: Files, run: Manifest, kinds: Sequence[Kind] = KINDS) -> None:
    """Remove a run's segments or members of earlier generations than this one."""
    folder = segments_folder(run.campaign_id, run.run_number)
    for name in files.list_names(folder):
        found = _FILE.fullmatch(name)
        if found and found[1] in kinds and int(found[2]) < run.generation:
            files.remove(f"{folder}/{name}")


def read_segments(files: Files, run: Manifest, kind: Kind) -> pl.DataFrame:
    """Read a run's segments or members. Raises SegmentsMissing, SegmentsDamaged."""
    path = segments_file(run, kind)
    try:
        content = files.read(path)
    except NotInLake:
        raise SegmentsMissing(
            f"The lake has no {kind} of run {run.run_number} of campaign {run.campaign_id}."
        ) from None
    try:
        return pl.read_parquet(content, columns=segment_columns(kind).names())
    except pl.exceptions.PolarsError:
        raise SegmentsDamaged.at(path) from None

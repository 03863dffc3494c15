"""A list of a person's own, for the demo: read as a refresh reads it, checked before anything is
started, and written as the first content of a sandbox.
"""

from __future__ import annotations

import re
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from keyword import iskeyword
from pathlib import Path

from pydantic import ValidationError

from blocks import FileCrm
from blocks.portfolio import describe_first_error
from blocks.storage.scratch import scratch_folder
from nudgescribe.errors import NudgeflowError, counted, first_ten
from nudgescribe.lazy import pl

FEWEST_ROWS = 2
_CONSTANTS = ("true", "false", "none")
"""What a template takes for a value and not for a field, beside Python's own words."""


class ListUnusable(NudgeflowError):
    """The demo cannot be made from this list, or from these arguments."""

    advice = "Correct the list, or its segments, delimiter or encoding; nothing was started."


@dataclass(frozen=True)
class DemoList:
    """A list with the block that reads it, its fields by the columns they come from, and the fields
    that it is segmented by.
    """

    crm: FileCrm
    frame: pl.DataFrame
    columns: Mapping[str, str]
    segments: Sequence[str]

    def write_csv(self, file: Path) -> None:
        """Write the list with the names of its fields."""
        self.frame.write_csv(file, quote_style="always")


def read_list(
    path: Path, segments: str, delimiter: str | None = None, encoding: str | None = None
) -> DemoList:
    """Read a list, its columns named as fields of a workspace; `segments` are some of them: a,b.

    Raises ListUnusable, SourceError, SourceUnavailable.
    """
    crm = _block(path, delimiter, encoding)
    with scratch_folder("the customer list") as folder:
        crm.extract(folder / "list.parquet")
        frame = pl.read_parquet(folder / "list.parquet")
    columns = _fields(frame.columns)
    frame = frame.rename({column: field for field, column in columns.items()})
    chosen = [_find(wanted, columns) for wanted in segments.split(",") if wanted.strip()]
    _check(frame, chosen)
    return DemoList(crm, frame, columns, chosen)


def _block(path: Path, delimiter: str | None, encoding: str | None) -> FileCrm:
    if not path.is_file():
        raise ListUnusable(f"There is no file {path}.")
    try:
        return FileCrm(path=str(path.resolve()), delimiter=delimiter, encoding=encoding)
    except ValidationError as error:
        raise ListUnusable(f"The list cannot be read {describe_first_error(error)}.") from None


def _fields(columns: Sequence[str]) -> dict[str, str]:
    """Return a field for each column, named so that a template can have it."""
    fields: dict[str, str] = {}
    for number, column in enumerate(columns, 1):
        name = re.sub(r"\W+", "_", column.strip()).strip("_")
        if not name or name[0].isdigit() or iskeyword(name) or name.lower() in _CONSTANTS:
            name = f"column_{number}_{name}".rstrip("_")
        if name in fields:
            name = f"{name}_{number}"
        fields[name] = column
    return fields


def _find(wanted: str, columns: Mapping[str, str]) -> str:
    """Return the field of a column that is named with or without blanks around it."""
    for field, column in columns.items():
        if wanted.strip() in (field, column.strip()):
            return field
    there = first_ten(column.strip() for column in columns.values())
    raise ListUnusable(
        f"The list has no column '{wanted.strip()}' to segment by; its columns are: {there}."
    )


def _check(frame: pl.DataFrame, segments: Sequence[str]) -> None:
    """Check that there are customers to write to, in segments. Raises ListUnusable."""
    key = frame.columns[0]
    if not segments:
        raise ListUnusable("No column of the list is named to segment by, such as a,b.")
    if key in segments:
        raise ListUnusable("The first column tells customers apart: segment by others.")
    if frame.height < FEWEST_ROWS:
        raise ListUnusable(
            f"The list has {counted(frame.height, 'row')}; {FEWEST_ROWS} are needed."
        )
    ids = frame.filter(pl.col(key) != "")[key]
    if repeated := ids.len() - ids.n_unique():
        raise ListUnusable(
            f"{counted(repeated, 'customer identifier', 'occurs')} more than once: the first "
            "column must tell customers apart."
        )

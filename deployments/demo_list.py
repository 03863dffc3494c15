"""A list of a person's own, for the demo: read as a refresh reads it, checked before anything is
started, and written as the first content of a sandbox.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

from pydantic import ValidationError

from blocks import FileCrm
from blocks.crm.errors import SourceError
from blocks.portfolio import describe_first_error
from blocks.storage.scratch import scratch_folder
from nudgescribe.errors import NudgeflowError, counted
from nudgescribe.lazy import pl
from sandbox.seed import find_field
from sandbox.writing.templates import name_fields

FEWEST_ROWS = 2


class ListUnusable(NudgeflowError):
    """The demo cannot be made from this list, or from these arguments."""

    advice = (
        "Nothing was started. Correct the list, or what is said of it by --segments, --delimiter "
        "or --encoding; make has SEGMENTS=, DELIMITER= and ENCODING=."
    )


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

    Raises ListUnusable, SeedRefused.
    """
    crm = _block(path, delimiter, encoding)
    with scratch_folder("the customer list") as folder:
        try:
            crm.extract(folder / "list.parquet")
        except SourceError as error:  # whose advice is about a block, and here is none
            raise ListUnusable(error.problem) from None
        frame = pl.read_parquet(folder / "list.parquet")
    columns = name_fields(frame.columns)
    frame = frame.rename({column: field for field, column in columns.items()})
    chosen = [find_field(wanted, columns) for wanted in segments.split(",") if wanted.strip()]
    _check(frame, chosen)
    return DemoList(crm, frame, columns, chosen)


def _block(path: Path, delimiter: str | None, encoding: str | None) -> FileCrm:
    if not path.is_file():
        raise ListUnusable(f"There is no file {path}.")
    try:
        return FileCrm(path=str(path.resolve()), delimiter=delimiter, encoding=encoding)
    except ValidationError as error:
        raise ListUnusable(f"The list cannot be read {describe_first_error(error)}.") from None


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

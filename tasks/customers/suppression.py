"""The suppression list: the customers who must not be written to."""

from __future__ import annotations

from collections.abc import Generator
from contextlib import contextmanager
from pathlib import Path
from typing import Any, Self

from blocks import CrmSource
from blocks.crm.list_file import ListFile
from blocks.storage.parquet import ParquetSink, text_schema
from nudgescribe.bases import Frozen
from nudgescribe.errors import NudgeflowError, Retryable
from nudgescribe.fields import column
from nudgescribe.lazy import parquet
from tasks.customers.left_out import ID
from tasks.customers.split import read_identifiers


class SuppressionUnreadable(NudgeflowError):
    """The list of customers who must not be written to cannot be read."""

    advice = "Nothing was published. Make the list readable again, then retry or start anew."


class SuppressionUnavailable(SuppressionUnreadable, Retryable):
    """The source of the suppression list cannot be reached, or is busy."""

    advice = "Nothing was published. Try again later."


class SuppressionEmpty(SuppressionUnreadable):
    """The suppression list has nobody: it may have been lost."""

    advice = (
        "Nothing was published. Restore the list, then retry or start anew; if nobody is to be "
        "suppressed, start a refresh without options.suppress."
    )


class Suppression(Frozen):
    """The suppression list that a refresh keeps to: the `block`, as a reference, and the `column`
    of its identifiers; with the number of customers that it took out of the list.
    """

    block: dict[str, Any]
    column: str
    customers: int

    @classmethod
    def of(cls, source: CrmSource, column: str, customers: int) -> Self:
        """Note what was looked at first. Raises BlockNotSaved."""
        return cls(block=source.to_reference(), column=column, customers=customers)

    def load(self) -> CrmSource:
        """Load the block as it is now. Raises BlockNotFound."""
        return CrmSource.model_validate(self.block)


def read_suppressed(source: CrmSource, name: str, folder: Path) -> Path:
    """Write the identifiers of a suppression list, its column of this name, to a file of the
    folder; return its path.

    Raises SuppressionUnavailable, SuppressionUnreadable, SuppressionEmpty.
    """
    source = source.resolve()
    with _unreadable(source):
        file = list_identifiers(source, name, folder)
    if not parquet.read_metadata(file).num_rows:
        raise SuppressionEmpty(f"{source.block_slug} has no identifiers.")
    return file


def list_identifiers(source: CrmSource, name: str, folder: Path) -> Path:
    """Write the identifiers of a list, its column of this name, to a file of the folder, blank ones
    left out; return its path. Raises SourceError, ListRefused.
    """
    extracted, file = folder / "list.parquet", folder / "identifiers.parquet"
    with ParquetSink(file, text_schema([ID])) as sink:
        source.extract(extracted, frozenset([name]))
        for ids in read_identifiers(ListFile(extracted), name, column(name)):
            sink.write(ids.filter(ids.str.strip_chars() != "").to_frame(ID))
    extracted.unlink()
    return file


@contextmanager
def _unreadable(source: CrmSource) -> Generator[None]:
    try:
        yield
    except Retryable as error:
        raise SuppressionUnavailable(f"{source.block_slug}: {error.problem}") from None
    except NudgeflowError as error:
        raise SuppressionUnreadable(f"{source.block_slug}: {error.problem}") from None

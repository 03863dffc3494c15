"""The base of all sources of customer lists, and their errors."""

from abc import ABC, abstractmethod
from pathlib import Path

from blocks.saved import Logger as Logger
from blocks.saved import SavedBlock
from nudgescribe.errors import NudgeflowError, Retryable


class SourceError(NudgeflowError):
    """A list cannot be extracted as the CRM block says."""

    advice = "Nothing was changed. Correct the CRM block, then start again."


class SourceUnavailable(SourceError, Retryable):
    """The CRM cannot be reached, or is busy."""

    advice = "Nothing was changed. Try again later."


class CrmSource(SavedBlock, ABC):
    """A source that a customer list is extracted from."""

    @abstractmethod
    def extract(self, target: Path) -> int:
        """Write the list to a Parquet file and return its number of rows.

        The file has the columns of the source; text stays text. Some thousand rows at a time are
        in memory, however long the list is.

        Raises SourceUnavailable if another try may succeed, else SourceError.
        """

"""The base of all sources of customer lists, and their errors."""

import logging
from abc import ABC, abstractmethod
from pathlib import Path

from prefect.exceptions import MissingContextError
from prefect.logging import get_logger, get_run_logger

from blocks.saved import SavedBlock
from nudgescribe.errors import NudgeflowError, Retryable

Logger = logging.Logger | logging.LoggerAdapter[logging.Logger]


class SourceError(NudgeflowError):
    advice = "Nothing was changed. Correct the CRM block, then start again."


class SourceUnavailable(SourceError, Retryable):
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

    @property
    def logger(self) -> Logger:
        """Return the logger of the flow or task run; outside of runs, one of the block's own."""
        try:
            return get_run_logger()
        except MissingContextError:
            return get_logger(type(self).__name__)

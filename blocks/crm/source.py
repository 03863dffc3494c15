"""What every source of customer lists does: extract the list into one Parquet file."""

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
    """A place customer lists are pulled from."""

    @abstractmethod
    def extract(self, target: Path) -> int:
        """Writes the list to a Parquet file, one column per column of the source, and returns its
        number of rows. Text stays text. Raises SourceError, or SourceUnavailable if another try
        may do. Needs memory for some thousand rows at a time, however long the list is.
        """

    @property
    def logger(self) -> Logger:
        """The flow or task run's, within one."""
        try:
            return get_run_logger()
        except MissingContextError:
            return get_logger(type(self).__name__)

"""The errors of all sources of customer lists."""

from nudgescribe.errors import NudgeflowError, Retryable


class SourceError(NudgeflowError):
    """A list cannot be extracted as the CRM block says."""

    advice = "Nothing was changed. Correct the list or the CRM block, then start again."


class ColumnMissing(SourceError):
    """A list lacks a column that a field is to be filled from."""

    advice = "Nothing was changed. Correct options.fields, or the list, then start again."


class SourceUnavailable(SourceError, Retryable):
    """The CRM cannot be reached, or is busy."""

    advice = "Nothing was changed. Try again later."

"""The errors of all sources of customer lists."""

from nudgescribe.errors import NudgeflowError, Retryable


class SourceError(NudgeflowError):
    advice = "Nothing was changed. Correct the CRM block, then start again."


class SourceUnavailable(SourceError, Retryable):
    advice = "Nothing was changed. Try again later."

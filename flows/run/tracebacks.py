"""The log of a run that fails with an error of ours: its text in place of Prefect's traceback."""

import logging

from nudgescribe.errors import NudgeflowError

LOGGERS = ("prefect.flow_runs", "prefect.task_runs", "prefect.engine")


def leave_out() -> None:
    """Log the text of our errors, which says what was wrong, where, and what to do.

    Prefect logs three tracebacks of twenty lines each, and who watches would see nothing else at
    the end. At level DEBUG they stay.
    """
    for name in LOGGERS:
        logging.getLogger(name).addFilter(_shorten)


def _shorten(record: logging.LogRecord) -> bool:
    error = record.exc_info and record.exc_info[1]
    debugging = logging.getLogger(record.name).isEnabledFor(logging.DEBUG)
    if isinstance(error, NudgeflowError) and not debugging:
        record.exc_info = None
        record.msg, record.args = f"{type(error).__name__}: {error}", None
    return True

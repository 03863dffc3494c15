"""Log lines of flow and task runs know their campaign and its run.

Prefect's loggers give a record the id of its flow run. A filter adds `campaign_id` and
`run_number`, which JSON lines then have as fields, and any format can name.
"""

import logging

from prefect.context import FlowRunContext
from prefect.logging.handlers import APILogHandler

from tasks.ui.signals import RUN_NUMBER

LOGGERS = ("prefect.flow_runs", "prefect.task_runs")
MOST_KNOWN = 1000


class _Named(logging.Formatter):
    """Adds campaign and run to a line for Prefect's server, which has no fields for them."""

    def format(self, record: logging.LogRecord) -> str:
        """Return the line, with what is known."""
        text = super().format(record)
        campaign, run = getattr(record, "campaign_id", None), getattr(record, "run_number", None)
        if campaign is None:
            return text
        return f"{text} [campaign {campaign}{'' if run is None else f', run {run}'}]"


class _RunNames(logging.Filter):
    """Lets every record pass, with `campaign_id` and `run_number`, None if there is none."""

    def __init__(self, *, in_texts: bool) -> None:
        super().__init__()
        self._formatter = _Named() if in_texts else None
        self._known: dict[object, tuple[str | None, int | None]] = {}

    def filter(self, record: logging.LogRecord) -> bool:
        """Add the fields."""
        flow_run = getattr(record, "flow_run_id", None)
        if names := current_run():
            if len(self._known) > MOST_KNOWN:
                self._known.clear()
            self._known[flow_run] = names
        # Prefect's last line of a flow run comes after its context.
        record.campaign_id, record.run_number = names or self._known.get(flow_run, (None, None))
        if self._formatter:
            self._format(record.name)
        return True

    def _format(self, name: str) -> None:
        # Prefect may make its handlers anew at any time.
        for handler in logging.getLogger(name).handlers:
            if isinstance(handler, APILogHandler) and handler.formatter is None:
                handler.setFormatter(self._formatter)


def current_run() -> tuple[str | None, int | None] | None:
    """Return the campaign and run number of the running flow run; None outside of one."""
    context = FlowRunContext.get()
    if context is None or context.flow_run is None:
        return None
    parameters = context.parameters or {}
    campaign = parameters.get("campaign_id")
    run = context.flow_run.labels.get(RUN_NUMBER, parameters.get("run"))
    return (
        campaign if isinstance(campaign, str) else None,
        run if isinstance(run, int) else None,
    )


def name_runs(*, in_texts: bool) -> None:
    """Give log records of flow and task runs their campaign and run; `in_texts`, the lines on
    Prefect's server end with them, too.
    """
    names = _RunNames(in_texts=in_texts)
    for logger in LOGGERS:
        logging.getLogger(logger).addFilter(names)

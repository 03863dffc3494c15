"""Traces, metrics and log lines of flow runs, for whatever speaks OpenTelemetry's protocol (OTLP).

`start` is all that it takes: with the extra `otel` and OpenTelemetry's own variables, which name a
receiver, it sets what sends there. Nothing of OpenTelemetry's SDK is imported otherwise.
"""

import logging
import os
from functools import cache

from blocks.extras import how_to_install, is_installed
from tasks.telemetry.logs import name_runs

ENDPOINT = "OTEL_EXPORTER_OTLP_ENDPOINT"
SIGNALS = {
    name: (f"OTEL_EXPORTER_OTLP_{name}_ENDPOINT", f"OTEL_{name}_EXPORTER")
    for name in ("TRACES", "METRICS")
}
"""The variables of each signal: where it is sent, and whether it is."""
logger = logging.getLogger(__name__)


def wanted() -> set[str]:
    """Return the signals that the environment names a receiver for."""
    given = os.environ.get
    if given("OTEL_SDK_DISABLED", "").strip().lower() == "true":
        return set()
    return {
        signal
        for signal, (endpoint, exporter) in SIGNALS.items()
        if (given(endpoint) or given(ENDPOINT)) and given(exporter, "").strip() != "none"
    }


@cache
def start() -> None:
    """Send traces and metrics of this process's flow runs, if the environment says where to; name
    campaign and run in their log lines.

    Without the extra it is told once in the log. Nothing is raised: telemetry stops no flow.
    """
    signals = wanted()
    name_runs(in_texts=bool(signals))
    if not signals:
        return
    if not is_installed("otel"):
        logger.warning(
            "The environment names a receiver of telemetry, which needs the extra otel: %s. "
            "Nothing is sent.",
            how_to_install("otel"),
        )
        return
    from tasks.telemetry.providers import set_providers

    try:
        set_providers(signals)
    except Exception as error:
        # Such as a variable with a value that the SDK refuses; its text may hold the value.
        logger.warning("No telemetry is sent: %s while it was set up.", type(error).__name__)

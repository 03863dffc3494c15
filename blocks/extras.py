"""The extras of this package: libraries that only some of what it does needs."""

from importlib import import_module
from typing import Literal

from nudgescribe.errors import NudgeflowError

Extra = Literal["charts", "dask", "delta", "duckdb", "openlineage", "otel", "postgresql", "ray"]

MODULES: dict[Extra, str] = {
    "charts": "matplotlib",
    "dask": "prefect_dask",
    "delta": "deltalake",
    "duckdb": "duckdb_engine",
    "openlineage": "openlineage.client",
    "otel": "opentelemetry.exporter.otlp.proto.http",
    "postgresql": "psycopg",
    "ray": "prefect_ray",
}
"""The library of each extra; not of `kubernetes` and `redis`, which Prefect itself imports."""


class ExtraMissing(NudgeflowError):
    """An extra that the parameters or a block ask for is not installed."""

    advice = "Install it on every machine that flow runs work on, then retry."


def is_installed(extra: Extra) -> bool:
    """Return whether an extra's library can be imported."""
    try:
        import_module(MODULES[extra])
    except ImportError:
        return False
    return True


def require(extra: Extra, what: str) -> None:
    """Check that the extra is installed that `what` needs. Raises ExtraMissing."""
    if not is_installed(extra):
        raise ExtraMissing(f"{what} needs the extra {extra}: {how_to_install(extra)}.")


def how_to_install(extra: Extra) -> str:
    """Return the command that installs an extra."""
    return f'pip install "nudgeflow[{extra}]"'

"""Sets the limits that all flow runs share, in the Prefect of the current profile."""

from argparse import ArgumentParser

from prefect.client.orchestration import get_client

CALLS, DOWNLOADS = "nudgescribe-calls", "nudgescribe-downloads"
MOST_CALLS, MOST_DOWNLOADS = 8, 16


def set_limits(calls: int = MOST_CALLS, downloads: int = MOST_DOWNLOADS) -> None:
    """Slots that are in use stay so."""
    with get_client(sync_client=True) as client:
        for name, limit in ((CALLS, calls), (DOWNLOADS, downloads)):
            client.upsert_global_concurrency_limit_by_name(name, limit)


def main() -> None:
    parser = ArgumentParser(prog="python -m deployments.limits", description=__doc__)
    parser.add_argument("--calls", type=_count, default=MOST_CALLS, help="%(default)s")
    parser.add_argument("--downloads", type=_count, default=MOST_DOWNLOADS, help="%(default)s")
    options = parser.parse_args()
    set_limits(options.calls, options.downloads)
    print(f"{CALLS}: {options.calls}\n{DOWNLOADS}: {options.downloads}")


def _count(text: str) -> int:
    if (number := int(text)) < 1:
        raise ValueError
    return number


if __name__ == "__main__":
    main()

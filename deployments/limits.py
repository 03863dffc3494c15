"""The limits that all flow runs share: Prefect's global concurrency limits."""

from prefect.client.orchestration import SyncPrefectClient, get_client

from deployments.upserts import Outcome, found

CALLS, DOWNLOADS = "nudgescribe-calls", "nudgescribe-downloads"
MOST_CALLS, MOST_DOWNLOADS = 8, 16


def set_limits(calls: int | None = None, downloads: int | None = None) -> dict[str, Outcome]:
    """Makes the limits, or gives them these numbers, also while slots of them are in use.

    Without a number a limit stays as it is. Returns what became of each.
    """
    with get_client(sync_client=True) as client:
        return {
            CALLS: _set(client, CALLS, calls, MOST_CALLS),
            DOWNLOADS: _set(client, DOWNLOADS, downloads, MOST_DOWNLOADS),
        }


def _set(client: SyncPrefectClient, name: str, wanted: int | None, default: int) -> Outcome:
    limit = found(client.read_global_concurrency_limit_by_name, name)
    if limit and wanted in (None, limit.limit):
        return "unchanged"
    client.upsert_global_concurrency_limit_by_name(name, wanted or default)
    return "updated" if limit else "created"

"""Limits that all flow runs share."""

from prefect.client.orchestration import SyncPrefectClient, get_client

from deployments.server import CALLS, upsert_limit


def slots(client: SyncPrefectClient) -> int:
    return client.read_global_concurrency_limit_by_name(CALLS).limit


def test_limit_is_created_updated_and_left_as_it_is(prefect_server: None) -> None:
    with get_client(sync_client=True) as client:
        upsert_limit(client, CALLS, 3)
        assert slots(client) == 3
        assert upsert_limit(client, CALLS, 3) == "unchanged"
        assert upsert_limit(client, CALLS, 4) == "updated"
        assert upsert_limit(client, CALLS) == "unchanged"
        assert slots(client) == 4
        client.delete_global_concurrency_limit_by_name(CALLS)
        assert upsert_limit(client, CALLS) == "created"
        assert slots(client) == 8


def test_limit_closed_by_person_stays_closed(prefect_server: None) -> None:
    with get_client(sync_client=True) as client:
        upsert_limit(client, CALLS)
        client.upsert_global_concurrency_limit_by_name(CALLS, 0)
        assert upsert_limit(client, CALLS) == "unchanged"
        assert slots(client) == 0
        assert upsert_limit(client, CALLS, 8) == "updated"

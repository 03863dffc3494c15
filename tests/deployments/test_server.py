"""The limits that all flow runs share."""

from prefect.client.orchestration import get_client

from deployments.server import CALLS, DOWNLOADS, set_limits


def there() -> dict[str, int]:
    with get_client(sync_client=True) as client:
        return {one.name: one.limit for one in client.read_global_concurrency_limits(100)}


def test_it_makes_the_limits_and_sets_those_it_is_told_to(prefect_server: None) -> None:
    set_limits(3, 5)
    assert (there()[CALLS], there()[DOWNLOADS]) == (3, 5)
    assert set_limits(calls=4) == {CALLS: "updated", DOWNLOADS: "unchanged"}
    assert (there()[CALLS], there()[DOWNLOADS]) == (4, 5)
    with get_client(sync_client=True) as client:
        client.delete_global_concurrency_limit_by_name(CALLS)
    assert set_limits() == {CALLS: "created", DOWNLOADS: "unchanged"}
    assert there()[CALLS] == 8

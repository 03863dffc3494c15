"""Options of flows: what Prefect would store and show in clear is refused."""

import pytest
from prefect import flow
from prefect.exceptions import ParameterTypeError
from pydantic import ValidationError

from flows.options import FetchOptions, RefreshOptions


@pytest.mark.parametrize("cluster", ["tcp://dask-scheduler:8786", "ray://h:10001", "h:8786", None])
def test_address_of_a_cluster_is_taken_as_it_is(cluster: str | None) -> None:
    assert RefreshOptions(cluster=cluster).cluster == cluster


@pytest.mark.parametrize(
    "cluster",
    ["tls://me:s3cret@h:8786", "me:s3cret@h:8786", "tls://s3cret@h", "ray://h:10001?token=s3cret"],
)
def test_cluster_with_a_secret_is_refused_without_repeating_it(cluster: str) -> None:
    with pytest.raises(ValidationError, match="configuration of Dask or Ray") as caught:
        RefreshOptions(cluster=cluster)
    assert "s3cret" not in str(caught.value)

    @flow
    def fetch(options: FetchOptions) -> None: ...

    with pytest.raises(ParameterTypeError, match="configuration of Dask or Ray") as refused:
        fetch.validate_parameters({"options": {"cluster": cluster}})
    assert "s3cret" not in str(refused.value)

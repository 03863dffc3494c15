"""Flow runs whose parameters name blocks that are not there, as deployments and portfolios do."""

from typing import Any
from uuid import uuid4

import pytest
from prefect.exceptions import ParameterTypeError

from blocks import Portfolio
from blocks.saved import BlockInvalid, BlockNotFound, slug_reference
from flows.plan import plan_refresh
from flows.refresh import campaign_refresh
from tests.conftest import Company, Save, Saved, customers
from tests.support.deployed import deploy, work


@pytest.fixture
def saved(company: Company, save: Save) -> Saved:
    return save(company, customers(3))


def parameters(saved: Saved, **changed: Any) -> dict[str, Any]:
    return {"campaign_id": "c", **saved.references, **changed}


def test_missing_block_of_a_deployment_is_told_in_the_flow_runs_state(saved: Saved) -> None:
    missing = slug_reference(f"data-lake/{saved.name}x")
    deployed = deploy(campaign_refresh, "with-missing-block", parameters={"lake": missing})
    state = work(campaign_refresh, deployed.plan(parameters(saved, lake=missing)))
    assert state.is_failed()
    told = str(state.message)
    assert f"There is no saved block data-lake/{saved.name}x. Saved are: data-lake/" in told
    assert f"Is data-lake/{saved.name} meant?" in told


def test_missing_block_of_a_portfolio_is_told(saved: Saved) -> None:
    portfolio = Portfolio.model_validate(
        {"campaigns": [{"campaign_id": "c", "account": saved.name, "crm": f"sql-crm/{saved.name}"}]}
    )
    (member,) = portfolio.campaigns
    with pytest.raises(BlockNotFound, match=f"Is file-crm/{saved.name} meant?"):
        plan_refresh(
            **parameters(saved, account=member.account_reference, crm=member.crm_reference)
        )


def test_missing_block_of_an_option_is_told(saved: Saved) -> None:
    suppress = slug_reference(f"file-crm/{saved.name}x")
    with pytest.raises(BlockNotFound, match=f"Is file-crm/{saved.name} meant?"):
        campaign_refresh(**parameters(saved, options={"suppress": suppress}))


def test_deleted_and_invalid_blocks_of_a_flow_run_are_told(saved: Saved) -> None:
    gone = {"$ref": {"block_document_id": str(uuid4())}}
    with pytest.raises(BlockNotFound, match="The saved DataLake block .* is gone. Saved are: "):
        campaign_refresh(**parameters(saved, lake=gone))
    wrong = saved.lake.model_copy(update={"root": "lake"})
    wrong.save(saved.name, overwrite=True)
    with pytest.raises(BlockInvalid, match="is not valid: root must be an absolute path"):
        campaign_refresh(**parameters(saved))


def test_other_wrong_parameters_are_told_as_before(saved: Saved) -> None:
    with pytest.raises(ParameterTypeError, match="overlap"):
        campaign_refresh(**parameters(saved, options={"overlap": "never"}))

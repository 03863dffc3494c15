"""The refresh of a service whose answers lie in another envelope than the contract's."""

from io import BytesIO
from pathlib import Path

import pytest

from flows.options import RefreshOptions
from flows.refresh import campaign_refresh
from nudgescribe import rfc4180
from nudgescribe.retry import RetryPolicy
from sandbox import seed
from sandbox.settings import Envelope, Settings
from tests.conftest import SEEDED_CUSTOMERS, Company, Save, customers, serving
from tests.support.deployed import GUARDRAILS


@pytest.mark.parametrize("envelope", ["data", "bare", "camel"])
def test_refresh_reads_answers_in_another_envelope(
    save: Save, tmp_path: Path, envelope: Envelope
) -> None:
    settings = Settings(
        data=tmp_path / "data", rows_per_file=100, approve_after=0, envelope=envelope
    )
    with serving(settings) as service:
        company = Company(service, seed.seed(service.context, SEEDED_CUSTOMERS))
        campaign_id = company.seeded.campaign_id
        saved = save(company, customers(250))
        options = RefreshOptions.model_validate({"guardrails": GUARDRAILS, "group": "reuse"})
        result = campaign_refresh(campaign_id, **saved.blocks, options=options)
        messages = saved.lake.read(campaign_id, 2, "polars")
        service.fault("/exports/", status=503)  # so pages come as text in an answer
        with company.client(retry=RetryPolicy(attempts=1)) as client:
            page = BytesIO()
            client.download_page(campaign_id, 0, page)
            rows = client.fetch_rows(campaign_id, 0)
    assert (result.accepted, result.matched, result.new, result.orphaned) == (250, 12, 4, 4)
    assert messages.height == 250
    assert {(row.customer_id, row.message) for row in rows} <= {*messages.rows()}
    assert rfc4180.read(page.getvalue()).rows() == [(row.customer_id, row.message) for row in rows]

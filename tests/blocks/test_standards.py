"""Prefect's own standards for blocks, and what the UI shows of ours."""

from pathlib import Path
from urllib.parse import urlparse

import pytest
from prefect.blocks.core import Block
from prefect.client.orchestration import get_client
from prefect.testing.standard_test_suites import BlockStandardTestSuite

from blocks import CampaignPortfolio, CampaignRerun, DataLake, NudgescribeAccount, SqlTable
from blocks.crm import SOURCES

ROOT = Path(__file__).parents[2]


BLOCKS = [CampaignPortfolio, CampaignRerun, DataLake, NudgescribeAccount, SqlTable, *SOURCES]


@pytest.mark.parametrize("block", BLOCKS)
class TestStandards(BlockStandardTestSuite):
    @pytest.fixture
    def block(self, block: type[Block]) -> type[Block]:
        return block

    def test_documentation_link_leads_to_a_heading_of_the_readme(self, block: type[Block]) -> None:
        headings = [
            line.lstrip("# ").lower().replace(" ", "-")
            for line in (ROOT / "README.md").read_text().splitlines()
            if line.startswith("#")
        ]
        link = urlparse(str(block._documentation_url))
        assert Path(link.path) == ROOT / "README.md"
        assert link.fragment in headings


def registered(block: type[Block]) -> dict[str, str | None]:
    """The type of a block as Prefect's server has it."""
    block.register_type_and_schema()
    with get_client(sync_client=True) as client:
        there = client.request(
            "GET", "/block_types/slug/{slug}", path_params={"slug": block.get_block_type_slug()}
        )
    return there.json()


@pytest.mark.parametrize("block", [CampaignRerun, DataLake])
def test_prefect_is_given_links_only_where_the_documents_are_published(
    prefect_server: None, monkeypatch: pytest.MonkeyPatch, block: type[Block]
) -> None:
    monkeypatch.setenv("NUDGEFLOW_DOCS_URL", "https://docs.example.com/nudgeflow/")
    there = registered(block)
    assert there["logo_url"] == "https://docs.example.com/nudgeflow/img/logo.png"
    assert str(there["documentation_url"]).startswith("https://docs.example.com/nudgeflow/#the-")
    assert "README" not in str(there["description"])
    monkeypatch.delenv("NUDGEFLOW_DOCS_URL")
    there = registered(block)
    assert (there["logo_url"], there["documentation_url"]) == (None, None)
    assert "in README.md, which is installed in share/doc/nudgeflow." in str(there["description"])

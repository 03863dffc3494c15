"""Prefect's own standards for blocks, and what the UI shows of ours."""

from io import BytesIO
from pathlib import Path
from urllib.parse import urlparse

import pytest
from prefect.blocks.core import Block
from prefect.testing.standard_test_suites import BlockStandardTestSuite

from blocks import CampaignPortfolio, CampaignRerun, DataLake, NudgescribeAccount, SqlTable
from blocks.crm import SOURCES
from blocks.saved import LOGO_URL

ROOT = Path(__file__).parents[2]


BLOCKS = [CampaignPortfolio, CampaignRerun, DataLake, NudgescribeAccount, SqlTable, *SOURCES]


@pytest.mark.parametrize("block", BLOCKS)
class TestStandards(BlockStandardTestSuite):
    @pytest.fixture
    def block(self, block: type[Block]) -> type[Block]:
        return block

    @pytest.fixture(autouse=True)
    def logo_from_the_repository(self, monkeypatch: pytest.MonkeyPatch) -> None:
        """The logo's address is the published one; the picture published there is this file."""

        def local(url: str) -> object:
            assert url == str(LOGO_URL)
            return BytesIO((ROOT / "docs" / urlparse(url).path.lstrip("/")).read_bytes())

        monkeypatch.setattr("prefect.testing.standard_test_suites.blocks.urlopen", local)

    def test_documentation_link_leads_to_a_heading_of_the_readme(self, block: type[Block]) -> None:
        headings = [
            line.lstrip("# ").lower().replace(" ", "-")
            for line in (ROOT / "README.md").read_text().splitlines()
            if line.startswith("#")
        ]
        assert urlparse(str(block._documentation_url)).fragment in headings

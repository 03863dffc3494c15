"""Portfolios in files."""

from pathlib import Path

import pytest

from blocks import CampaignPortfolio, Portfolio
from blocks.portfolio import NoPortfolio

GOOD = """
campaigns:
  - campaign_id: one
    crm: hubspot-crm/main
    options: {guardrails: {max_shrink: 0.5}}
  - {campaign_id: two}
workspaces: [w]
"""


def test_portfolio_is_read_from_a_file(tmp_path: Path) -> None:
    (tmp_path / "portfolio.yaml").write_text(GOOD)
    portfolio = Portfolio.from_file(str(tmp_path / "portfolio.yaml"))
    first, second = portfolio.campaigns
    assert (first.crm, first.options) == ("hubspot-crm/main", {"guardrails": {"max_shrink": 0.5}})
    assert (second.campaign_id, second.account, second.options) == ("two", None, {})
    assert portfolio.workspaces == ["w"]


@pytest.mark.parametrize(
    ("content", "problem"),
    [
        ("campaigns: [", "is not YAML"),
        ("- secret", "at the top: Input should be a valid dictionary or instance of Portfolio"),
        ("campaigns: [{campaign_id: 5}]", "at campaigns.0.campaign_id: Input should be a valid st"),
        ("campaigns: [{campaign_id: a, secret: b}]", "at campaigns.0.secret: Extra inputs are not"),
    ],
)
def test_portfolio_error_does_not_show_values(tmp_path: Path, content: str, problem: str) -> None:
    path = tmp_path / "portfolio.yaml"
    path.write_text(content)
    with pytest.raises(NoPortfolio, match=problem) as error:
        Portfolio.from_file(str(path))
    assert str(path) in str(error.value)
    assert error.value.__context__ is None or error.value.__suppress_context__


@pytest.mark.parametrize("path", ["no/portfolio.yaml", "nothing://portfolio.yaml"])
def test_missing_portfolio_file_is_named(path: str) -> None:
    with pytest.raises(NoPortfolio, match=f"The file {path} cannot be read"):
        Portfolio.from_file(path)


def test_path_of_a_file_is_accepted_as_version_0_1_stored_it(tmp_path: Path) -> None:
    file = tmp_path / "portfolio.yaml"
    file.write_text("workspaces: [W]")
    assert CampaignPortfolio.model_validate(str(file)).portfolio.workspaces == ["W"]

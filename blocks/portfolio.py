"""The block for a portfolio, a list of campaigns that are refreshed together."""

from typing import Any

import yaml
from fsspec.core import url_to_fs
from prefect.blocks.core import Block
from pydantic import Field, ValidationError

from blocks.documentation import documentation_url
from blocks.saved import SavedBlock, slug_reference
from nudgescribe.bases import FrozenInput
from nudgescribe.errors import NudgeflowError, describe_invalid


class NoPortfolio(NudgeflowError):
    """A portfolio names no campaign, or is not valid."""

    advice = "A portfolio lists campaigns, workspaces or both; see docs/portfolio.md."


class Member(FrozenInput):
    """A campaign of a portfolio, with what differs from the flow's own parameters."""

    campaign_id: str = Field(description="ID of the campaign.")
    account: str | None = Field(default=None, description="Name of its account block.")
    crm: str | None = Field(
        default=None, description="Type and name of its CRM block, such as sql-crm/main."
    )
    options: dict[str, Any] = Field(
        default_factory=dict[str, Any],
        description="Options of its refresh that differ, such as fields or guardrails.",
    )

    @property
    def account_reference(self) -> dict[str, Any] | None:
        """Return the reference to its account block, for a flow run's parameters."""
        return slug_reference(f"nudgescribe-account/{self.account}") if self.account else None

    @property
    def crm_reference(self) -> dict[str, Any] | None:
        """Return the reference to its CRM block, for a flow run's parameters."""
        return slug_reference(self.crm) if self.crm else None


class Portfolio(FrozenInput):
    """Campaigns by ID, and all published campaigns of some workspaces."""

    campaigns: list[Member] = Field(
        default_factory=list[Member],
        description="The campaigns, each with what differs from the flow's own parameters.",
    )
    workspaces: list[str] = Field(
        default_factory=list[str],
        description="IDs of workspaces; all of their published campaigns are refreshed.",
    )

    @classmethod
    def from_file(cls, path: str) -> "Portfolio":
        """Read a portfolio from a YAML file at any fsspec path. Raises NoPortfolio."""
        try:
            fs, fs_path = url_to_fs(path)
            return cls.model_validate(yaml.safe_load(fs.cat_file(fs_path)))
        except yaml.YAMLError:
            raise NoPortfolio(f"The file {path} is not YAML.") from None
        except ValidationError as error:
            raise NoPortfolio(f"In the file {path}, {describe_first_error(error)}.") from None
        except (OSError, ValueError):
            raise NoPortfolio(f"The file {path} cannot be read.") from None


def describe_first_error(error: ValidationError) -> str:
    """Return where the first error is and what it is, without the value."""
    first = error.errors(include_input=False)[0]
    location = ".".join(str(step) for step in first["loc"]) or "the top"
    return f"at {location}: {describe_invalid(first)}"


class CampaignPortfolio(SavedBlock):
    """
    A list of campaigns that portfolio-refresh refreshes together.

    Example:
        ```python
        from blocks import CampaignPortfolio

        portfolio = CampaignPortfolio.load("BLOCK_NAME")
        ```
    """

    _block_type_name = "Campaign portfolio"
    _documentation_url = documentation_url("many-campaigns")

    portfolio: Portfolio = Field(description="The campaigns, and the workspaces.")

    @classmethod
    def from_name(cls, name: str) -> Block:
        """Load what version 0.1 stored as a parameter: a name, or the path of a YAML file."""
        if name.endswith((".yaml", ".yml")):
            return cls(portfolio=Portfolio.from_file(name))
        return super().from_name(name)

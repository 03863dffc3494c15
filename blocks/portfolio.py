"""Campaigns that are refreshed together."""

from typing import Any

import yaml
from fsspec.core import url_to_fs
from pydantic import BaseModel, ConfigDict, Field, ValidationError

from blocks.saved import SavedBlock, documentation_url, slug_reference
from nudgescribe.errors import NudgeflowError


class NoPortfolio(NudgeflowError):
    advice = "A portfolio lists campaigns, workspaces or both; see docs/portfolio.md."


class Member(BaseModel):
    """A campaign of a portfolio; where it says nothing, the portfolio's own parameters count."""

    model_config = ConfigDict(frozen=True, extra="forbid")

    campaign_id: str = Field(description="The campaign.")
    account: str | None = Field(default=None, description="Name of its account block.")
    crm: str | None = Field(default=None, description="Type and name of its CRM block.")
    options: dict[str, Any] = Field(
        default_factory=dict[str, Any],
        description="Options of its refresh that differ, such as fields or guardrails.",
    )

    @property
    def account_reference(self) -> dict[str, Any] | None:
        """What stands for its account block in a flow run's parameters."""
        return slug_reference(f"nudgescribe-account/{self.account}") if self.account else None

    @property
    def crm_reference(self) -> dict[str, Any] | None:
        """What stands for its CRM block in a flow run's parameters."""
        return slug_reference(self.crm) if self.crm else None


class Portfolio(BaseModel):
    """The campaigns of a list, and all that are published of some workspaces."""

    model_config = ConfigDict(frozen=True, extra="forbid")

    campaigns: list[Member] = Field(
        default_factory=list[Member],
        description="The campaigns, each with what differs from the flow's own parameters.",
    )
    workspaces: list[str] = Field(
        default_factory=list[str],
        description="Ids of workspaces: all of their published campaigns belong to the portfolio.",
    )

    @classmethod
    def from_file(cls, path: str) -> "Portfolio":
        """The portfolio a YAML file describes, on any fsspec path. Raises NoPortfolio."""
        try:
            system, place = url_to_fs(path)
            return cls.model_validate(yaml.safe_load(system.cat_file(place)))
        except yaml.YAMLError:
            raise NoPortfolio(f"The file {path} is not YAML.") from None
        except ValidationError as error:
            raise NoPortfolio(f"In the file {path}, {describe_first_error(error)}.") from None
        except (OSError, ValueError):
            raise NoPortfolio(f"The file {path} cannot be read.") from None


def describe_first_error(error: ValidationError) -> str:
    """Where it is and what it is, without what stands there."""
    first = error.errors(include_input=False)[0]
    where = ".".join(str(step) for step in first["loc"]) or "the top"
    return f"at {where}: {first['msg']}"


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

"""Prefect blocks: the account, sources of customer lists, the lake, portfolios, and the rerun."""

import os
import sys
from typing import TYPE_CHECKING, Any

if sys.platform == "linux":
    # Arrow reads this when it is first imported. Jemalloc returns memory sooner than Arrow's own
    # choice: an export needs a third less at its peak.
    os.environ.setdefault("ARROW_DEFAULT_MEMORY_POOL", "jemalloc")

from blocks.account import NudgescribeAccount
from blocks.crm import (
    CrmSource,
    FileCrm,
    HubSpotCrm,
    SalesforceCrm,
    SourceError,
    SourceUnavailable,
    SqlCrm,
)
from blocks.lake import DataLake
from blocks.portfolio import CampaignPortfolio, Member, Portfolio
from blocks.rerun import CampaignRerun
from blocks.table import SqlTable

if TYPE_CHECKING:
    from blocks.sources import Crm
else:

    def __getattr__(name: str) -> Any:
        """Look up `Crm` when it is first asked for: packages that add sources import this one."""
        if name != "Crm":
            raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
        from blocks.sources import Crm

        return Crm


__all__ = [
    "CampaignPortfolio",
    "CampaignRerun",
    "Crm",
    "CrmSource",
    "DataLake",
    "FileCrm",
    "HubSpotCrm",
    "Member",
    "NudgescribeAccount",
    "Portfolio",
    "SalesforceCrm",
    "SourceError",
    "SourceUnavailable",
    "SqlCrm",
    "SqlTable",
]

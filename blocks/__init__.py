"""Prefect blocks: the account, sources of customer lists, the lake, portfolios, and the rerun."""

import os
import sys

if sys.platform == "linux":
    # Arrow reads this when it is first imported. Jemalloc returns memory sooner than Arrow's own
    # choice: an export needs a third less at its peak.
    os.environ.setdefault("ARROW_DEFAULT_MEMORY_POOL", "jemalloc")

from blocks.account import NudgescribeAccount
from blocks.crm import Crm, CrmSource, FileCrm, HubSpotCrm, SalesforceCrm, SqlCrm
from blocks.lake import DataLake
from blocks.portfolio import CampaignPortfolio, Member, Portfolio
from blocks.rerun import CampaignRerun

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
    "SqlCrm",
]

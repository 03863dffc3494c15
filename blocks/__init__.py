"""What a person configures in Prefect: an account, a CRM, a lake, and the rerun as a job."""

from blocks import allocator  # noqa: F401 # pyright: ignore[reportUnusedImport] - first of all
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

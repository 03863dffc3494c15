"""What a person configures in Prefect: an account, a CRM, a lake, and the rerun as a job."""

from blocks import allocator  # noqa: F401 # pyright: ignore[reportUnusedImport] - first of all
from blocks.account import NudgescribeAccount
from blocks.crm import CrmSource, FileCrm, HubSpotCrm, SalesforceCrm, SqlCrm
from blocks.lake import DataLake
from blocks.rerun import CampaignRerun

__all__ = [
    "CampaignRerun",
    "CrmSource",
    "DataLake",
    "FileCrm",
    "HubSpotCrm",
    "NudgescribeAccount",
    "SalesforceCrm",
    "SqlCrm",
]

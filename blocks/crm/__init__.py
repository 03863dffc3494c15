"""Where customer lists come from, each source a block."""

from blocks.crm.file import FileCrm
from blocks.crm.hubspot import HubSpotCrm
from blocks.crm.salesforce import SalesforceCrm
from blocks.crm.source import CrmSource, SourceError, SourceUnavailable
from blocks.crm.sql import SqlCrm

__all__ = [
    "CrmSource",
    "FileCrm",
    "HubSpotCrm",
    "SalesforceCrm",
    "SourceError",
    "SourceUnavailable",
    "SqlCrm",
]

"""Sources of customer lists, each of them a block."""

from blocks.crm.errors import SourceError, SourceUnavailable
from blocks.crm.files.block import FileCrm
from blocks.crm.saas.hubspot import HubSpotCrm
from blocks.crm.saas.salesforce import SalesforceCrm
from blocks.crm.source import CrmSource
from blocks.crm.sql.block import SqlCrm

SOURCES: tuple[type[CrmSource], ...] = (SqlCrm, FileCrm, HubSpotCrm, SalesforceCrm)
"""Our own sources."""

__all__ = [
    "SOURCES",
    "CrmSource",
    "FileCrm",
    "HubSpotCrm",
    "SalesforceCrm",
    "SourceError",
    "SourceUnavailable",
    "SqlCrm",
]

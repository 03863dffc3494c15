"""Where customer lists come from, each source a block."""

from blocks.crm.files.block import FileCrm
from blocks.crm.saas.hubspot import HubSpotCrm
from blocks.crm.saas.salesforce import SalesforceCrm
from blocks.crm.source import CrmSource, SourceError, SourceUnavailable
from blocks.crm.sql.block import SqlCrm

__all__ = [
    "CrmSource",
    "FileCrm",
    "HubSpotCrm",
    "SalesforceCrm",
    "SourceError",
    "SourceUnavailable",
    "SqlCrm",
]

"""Sources of customer lists, each of them a block."""

from typing import TYPE_CHECKING, Annotated, Any, Union

from pydantic import ValidatorFunctionWrapHandler, WrapValidator

from blocks.crm.errors import SourceError, SourceUnavailable
from blocks.crm.files.block import FileCrm
from blocks.crm.saas.hubspot import HubSpotCrm
from blocks.crm.saas.salesforce import SalesforceCrm
from blocks.crm.source import CrmSource
from blocks.crm.sql.block import SqlCrm
from blocks.saved import load_by_name

SOURCES: tuple[type[CrmSource], ...] = (SqlCrm, FileCrm, HubSpotCrm, SalesforceCrm)
"""The sources that the forms of flows offer, with a tab for each."""


def _validate_source(value: Any, validate: ValidatorFunctionWrapHandler) -> Any:
    """Accept a saved block of any source, even one that the forms do not offer."""
    if isinstance(value, str):
        value = load_by_name(value, CrmSource)
    return value if isinstance(value, CrmSource) else validate(value)


if TYPE_CHECKING:
    Crm = CrmSource
else:
    Crm = Annotated[Union[SOURCES], WrapValidator(_validate_source)]  # noqa: UP007
"""The type of a flow's parameter for a source of customer lists."""

__all__ = [
    "SOURCES",
    "Crm",
    "CrmSource",
    "FileCrm",
    "HubSpotCrm",
    "SalesforceCrm",
    "SourceError",
    "SourceUnavailable",
    "SqlCrm",
]

"""Where customer lists come from, each source a block."""

from typing import TYPE_CHECKING, Annotated, Any, Union

from pydantic import ValidatorFunctionWrapHandler, WrapValidator

from blocks.crm.files.block import FileCrm
from blocks.crm.saas.hubspot import HubSpotCrm
from blocks.crm.saas.salesforce import SalesforceCrm
from blocks.crm.source import CrmSource, SourceError, SourceUnavailable
from blocks.crm.sql.block import SqlCrm
from blocks.saved import load_by_name

SOURCES: tuple[type[CrmSource], ...] = (SqlCrm, FileCrm, HubSpotCrm, SalesforceCrm)
"""What the forms of flows offer, a tab each."""


def _any_source(value: Any, validate: ValidatorFunctionWrapHandler) -> Any:
    """Take a saved block of whatever source, known to the forms or not."""
    if isinstance(value, str):
        value = load_by_name(value, CrmSource)
    return value if isinstance(value, CrmSource) else validate(value)


if TYPE_CHECKING:
    Crm = CrmSource
else:
    Crm = Annotated[Union[SOURCES], WrapValidator(_any_source)]  # noqa: UP007
"""A source of customer lists, as a parameter of a flow."""

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

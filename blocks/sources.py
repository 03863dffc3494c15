"""All sources of customer lists: ours, and those that installed packages add.

Prefect imports this module as a collection, so that each of them can be loaded by its type's name.
Nothing in `blocks` imports it: a package that adds a source may be imported first, and imports
`blocks` itself.
"""

from typing import TYPE_CHECKING, Annotated, Any, Union

from prefect.blocks.core import Block
from prefect.utilities.dispatch import get_registry_for_type
from pydantic import ValidatorFunctionWrapHandler, WrapValidator

from blocks.account import NudgescribeAccount
from blocks.crm import SOURCES, CrmSource
from blocks.lake import DataLake
from blocks.packages import Unusable, load_added
from blocks.portfolio import CampaignPortfolio
from blocks.rerun import CampaignRerun
from blocks.saved import load_by_name
from blocks.table import SqlTable
from nudgescribe.errors import first_ten

GROUP = "nudgeflow.sources"
"""The entry points by which a package adds sources."""

_OURS: tuple[type[Block], ...] = (
    NudgescribeAccount, DataLake, CampaignPortfolio, CampaignRerun, SqlTable, *SOURCES
)  # fmt: skip
_types = get_registry_for_type(Block) or {}
"""Prefect's, of all blocks that are defined: the last one of a type replaces the others."""
_taken = {**_types, **{kind.get_block_type_slug(): kind for kind in _OURS}}


def _check(added: object) -> type[CrmSource]:
    """Return a class that can be a source. Raises Unusable, or what its schema raises."""
    if not (isinstance(added, type) and issubclass(added, CrmSource)):
        raise Unusable("it is no class that derives from blocks.CrmSource")
    if missing := sorted(added.__abstractmethods__):
        raise Unusable(f"it does not define {first_ten(missing)}")
    added.model_json_schema()  # without one no form could be shown, of any source
    slug = added.get_block_type_slug()
    if not slug:
        raise Unusable("its _block_type_name has neither a letter nor a digit")
    if _taken.setdefault(slug, added) is not added:
        raise Unusable(f"another block has its type's name, {slug}: change its _block_type_name")
    return added


ADDED: tuple[type[CrmSource], ...] = tuple(dict.fromkeys(load_added(GROUP, _check)))
"""The sources of installed packages, each once."""
_types.update(_taken)  # whatever their modules have defined besides, or before they failed


def _validate_source(value: Any, validate: ValidatorFunctionWrapHandler) -> Any:
    """Accept a saved block of any source, even one that the forms do not offer."""
    if isinstance(value, str):
        value = load_by_name(value, CrmSource)
    return value if isinstance(value, CrmSource) else validate(value)


if TYPE_CHECKING:
    Crm = CrmSource
else:
    Crm = Annotated[Union[(*SOURCES, *ADDED)], WrapValidator(_validate_source)]
"""The type of a flow's parameter for a source of customer lists: forms have a tab for each."""

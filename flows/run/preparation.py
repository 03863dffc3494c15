"""The customer list from the CRM, checked: how refresh, plan and synchronisation begin."""

from collections.abc import Callable, Generator
from contextlib import contextmanager, suppress

from blocks import CrmSource, DataLake, NudgescribeAccount
from flows.options import Listing
from tasks.campaigns import Refresh
from tasks.customers.extract import extract_customers
from tasks.customers.mapping import find_fields
from tasks.customers.validate import Validated, validate_customers


def prepare(
    account: NudgescribeAccount,
    workspace_id: str,
    crm: CrmSource,
    lake: DataLake,
    refresh: Refresh,
    options: Listing,
    place: str,
) -> Validated:
    """The accepted rows, staged; `place` is the folder for the others in the lake's quarantine."""
    rules = find_fields(account, workspace_id, options.fields)
    staged = extract_customers(crm, lake, refresh)
    return validate_customers(rules, staged, lake, refresh, options.fields, options.strict, place)


@contextmanager
def released_on_failure(release: Callable[[], object]) -> Generator[None]:
    """Has the staged list removed if what goes on here fails, and no earlier try got further."""
    try:
        yield
    except BaseException:
        with suppress(Exception):  # what went wrong first is what people must see
            release()
        raise

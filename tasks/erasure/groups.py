"""Erasure from the customer groups at Nudgescribe."""

from __future__ import annotations

from contextlib import suppress

from prefect import task
from prefect.logging import get_run_logger

from blocks import DataLake, NudgescribeAccount
from blocks.iterators import batched
from nudgescribe import errors
from nudgescribe.bases import Frozen
from nudgescribe.client import NudgescribeClient
from nudgescribe.contract import CustomerGroup
from nudgescribe.errors import BadRequest, NotFound
from nudgescribe.lazy import pl
from tasks.customers.sync import REMOVED_AT_ONCE
from tasks.erasure.listed import ToErase
from tasks.journal.entries import Journal, Step
from tasks.journal.refresh import Refresh
from tasks.policies import RETRIED


class InGroups(Frozen):
    """How many `customers` were deleted from how many `groups`, one in two groups counted twice;
    `refused` groups did not let theirs go.
    """

    customers: int = 0
    groups: int = 0
    refused: int = 0


@task(**RETRIED)
def erase_from_groups(
    to_erase: ToErase, account: NudgescribeAccount, lake: DataLake, run: Refresh
) -> InGroups:
    """Delete the customers from every group of the account's workspaces.

    What is noted in the journal is done; groups that refuse are tried again by a retry.
    Raises ContractMismatch if a workspace or a group cannot be read.
    """
    journal = Journal(lake.files, run.journal)
    if done := journal.find(Step.GROUPED, InGroups):
        return done
    deleted, refused = list[int](), 0
    with account.get_client() as client, to_erase.ids(lake) as ids:
        for group in _groups(client):
            try:
                # A group that is gone has nobody.
                with suppress(NotFound):
                    deleted.append(_delete(client, group, ids))
            except BadRequest as error:
                get_run_logger().warning("Group %s: %s", group.customer_group_id, error.problem)
                refused += 1
    groups = len([one for one in deleted if one])
    counts = InGroups(customers=sum(deleted), groups=groups, refused=refused)
    return counts if refused else journal.add(Step.GROUPED, counts)


def _groups(client: NudgescribeClient) -> list[CustomerGroup]:
    workspaces = client.campaigns()
    # A campaign that cannot be read is in the way of nobody.
    known = {id(record) for workspace in workspaces for record in workspace.malformed}
    groups: list[CustomerGroup] = []
    for record in workspaces.malformed:
        if id(record) not in known:
            raise errors.malformed("A workspace", record)
    for workspace in workspaces:
        listed = client.list_groups(workspace.workspace_id)
        for record in listed.malformed:
            raise errors.malformed(f"A group of workspace {workspace.workspace_id}", record)
        groups += listed
    return groups


def _delete(client: NudgescribeClient, group: CustomerGroup, ids: pl.Series) -> int:
    # The service takes no text with a NUL, so it has no such customer.
    ids = ids.filter(~ids.str.contains("\0", literal=True))
    return sum(
        client.delete_customers(group.workspace_id, group.customer_group_id, some)
        for some in batched(ids, REMOVED_AT_ONCE)
    )

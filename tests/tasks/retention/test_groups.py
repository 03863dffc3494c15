"""Which customer groups go from the service, and which never do."""

from collections.abc import Callable
from datetime import UTC, datetime, timedelta

import httpx
import pytest
from sqlalchemy import update

from blocks.storage.manifest import campaign_partition
from nudgescribe.contract import CustomerGroup, UpdateGroup
from nudgescribe.errors import AuthError
from sandbox.data.models import Group
from tasks.campaigns import GroupBusy
from tasks.journal.entries import Journal, Step
from tasks.journal.owners import Owner
from tasks.journal.refresh import Claimed, Holder, Refresh
from tasks.refresh.standing import Ended
from tasks.retention.groups import IN_DOUBT
from tasks.retention.rules import CHANGED, Ages
from tasks.retention.sweep import RetentionResult, list_candidates, remove_candidates
from tests.conftest import Company, Through
from tests.support.response_tamperer import ResponseTamperer
from tests.tasks.conftest import Create, Local
from tests.tasks.retention.test_sweep import another, begin_refresh, shown

GROUPS = "/v1/cg"

Make = Callable[..., str]


@pytest.fixture
def make(company: Company, create: Create) -> Make:
    """A customer group of a refresh, made a month ago."""

    def made(name: str, refresh: Refresh | None = None, reuse: bool = False, days: int = 31) -> str:
        group_id = create(name, refresh or another(), reuse).customer_group_id
        made_at = datetime.now(UTC) - timedelta(days=days)
        with company.sandbox.context.store.write() as session:
            values = {"created_at": made_at, "updated_at": made_at}
            session.execute(update(Group).where(Group.id == group_id).values(values))
        return group_id

    return made


def tidied(local: Local) -> tuple[list[str], RetentionResult]:
    """The names of what was listed, and what became of it."""
    found = list_candidates.fn(local.lake, local.account, Ages(groups_days=30), me := another())
    assert found.journal == me.journal
    names = [what.partition("(")[2].rstrip(")") for _, what in shown(local)]
    return sorted(names), remove_candidates.fn(local.lake, local.account, found)


def rerun(company: Company, group: str) -> None:
    """A run on a group, of one customer, that brings no segment anybody would have to review."""
    workspace_id = company.seeded.workspace_id
    with company.client() as client:
        first = next(client.customers(workspace_id, company.seeded.customer_group_id))
        client.upload_customer(workspace_id, group, first.profile)
        client.initiate_rerun(company.seeded.campaign_id, group)
        company.settle(client)
        client.publish(company.seeded.campaign_id)


def test_old_groups_of_ended_refreshes_are_removed(
    company: Company, local: Local, make: Make
) -> None:
    make("Nobody's")
    make("Young", days=29)
    begin_refresh(local.lake, me=(me := another()))
    make("Open", me)
    make("People's", another().model_copy(update={"id": "two words"}))
    touched = make("Renamed")
    with company.client() as client:
        client.update_group(UpdateGroup(customer_group_id=touched, name="VIPs"))
        client.create_group(company.seeded.workspace_id, "Theirs", "Nudgeflow is nice")
    names, done = tidied(local)
    assert names == ["Nobody's"]
    assert (done.removed["customer group"].count, done.kept) == (1, {})
    stay = {"First customers", "Young", "Open", "People's", "VIPs", "Theirs"}
    assert {*company.groups()} == stay
    assert tidied(local) == ([], RetentionResult(dry_run=False, removed={}))


def test_groups_of_last_runs_are_kept(company: Company, local: Local, make: Make) -> None:
    first, second, third, fourth = (make(name) for name in ("1st", "2nd", "3rd", "4th"))
    # Somebody has gone back to the first: it is meant to be used again.
    for group in (first, second, first, third, fourth):
        rerun(company, group)
    assert tidied(local)[0] == ["2nd"]
    assert {*company.groups()} == {"First customers", "1st", "3rd", "4th"}


def test_reused_group_is_kept(company: Company, local: Local, create: Create, make: Make) -> None:
    group = make("Ours", reuse=True)

    def ours() -> CustomerGroup:
        with company.client() as client:
            groups = client.list_groups(company.seeded.workspace_id)
        return next(each for each in groups if each.customer_group_id == group)

    holder = Holder.of(ours())
    assert holder is not None
    with pytest.raises(GroupBusy, match=f"held by refresh {holder.refresh}"):
        create("Ours", another(), reuse=True)
    journal = Journal(local.lake.files, holder.journal)
    owner = Owner(flow_run=holder.refresh, host="h", pid=1)
    me = another().model_copy(update={"id": holder.refresh})
    journal.create(Step.CLAIMED, Claimed(refresh=me, owner=owner))
    journal.create(Step.ENDED, Ended(outcome="completed"))
    create("Ours", another(), reuse=True)
    assert tidied(local)[0] == []
    assert ours().updated_at > ours().created_at


def test_group_is_kept_when_changed_since_listed(
    company: Company, local: Local, make: Make
) -> None:
    used, renamed, deleted = make("Used"), make("Renamed"), make("Deleted")
    found = list_candidates.fn(local.lake, local.account, Ages(groups_days=30), another())
    with company.client() as client:
        client.update_group(UpdateGroup(customer_group_id=renamed, name="VIPs"))
        client.delete_group(deleted)
    rerun(company, used)
    done = remove_candidates.fn(local.lake, local.account, found)
    assert done.removed["customer group"].count == 1
    assert done.kept == {
        used: f"Campaign {company.seeded.campaign_id} is on it.",
        renamed: CHANGED,
    }


def damage(company: Company, local: Local) -> None:
    """Nobody can tell whether the campaign's refresh is open, nor which it is."""
    partition = campaign_partition(company.seeded.campaign_id)
    local.lake.files.write(f"refreshes/{partition}/00000001/00-claimed.json", b"")


def test_groups_stay_while_a_journal_of_their_workspace_cannot_be_read(
    company: Company, local: Local, make: Make
) -> None:
    make("Ours")
    begin_refresh(local.lake, "elsewhere")
    local.lake.files.write("refreshes/campaign_id=elsewhere/00000001/00-claimed.json", b"")
    assert tidied(local)[0] == ["Ours"]
    group = make("Ours again")
    found = list_candidates.fn(local.lake, local.account, Ages(groups_days=30), another())
    damage(company, local)
    assert remove_candidates.fn(local.lake, local.account, found).kept == {group: IN_DOUBT}
    assert tidied(local)[0] == []


def refusing(status: int) -> ResponseTamperer:
    """A service that refuses the third call for groups, which is the deletion."""
    refused = httpx.Response(status, json={"message": "Customer group is in use."})
    return ResponseTamperer({GROUPS: [None, None, refused]})


def test_group_stays_when_service_refuses_deletion(
    local: Local, make: Make, through: Through
) -> None:
    group = make("Wanted")
    through(refusing(403))
    with pytest.raises(AuthError):
        tidied(local)
    through(refusing(400))
    reason = "DELETE /v1/cg answered 400: Customer group is in use."
    assert tidied(local)[1] == RetentionResult(dry_run=False, removed={}, kept={group: reason})
    # That it is gone already is as good.
    through(refusing(404))
    assert tidied(local)[1].removed["customer group"].count == 1

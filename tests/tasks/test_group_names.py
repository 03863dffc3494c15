"""Names of customer groups: by a template, on one line, never longer than a group's name may be."""

from datetime import UTC, datetime

import pytest
from pydantic import ValidationError

from flows.options import RefreshOptions
from nudgescribe.contract import LONGEST_GROUP_NAME
from sandbox.data.models import Campaign
from tasks.campaigns import find_campaign
from tasks.customers.upload import create_group
from tasks.group_names import GroupNameRefused, group_name
from tasks.journal.refresh import Refresh
from tests.conftest import Company
from tests.tasks.conftest import Local

RUN = datetime(2026, 11, 21, 6, 30, tzinfo=UTC)
USUAL = RefreshOptions().group_name


@pytest.mark.parametrize(
    ("template", "campaign", "name"),
    [
        (USUAL, "Welcome back", "Welcome back 2026-11-21 06:30"),
        (USUAL, "{run} {0} 100 %", "{run} {0} 100 % 2026-11-21 06:30"),
        (USUAL, "a\r\n\tb\u2028c\0 ", "a b c 2026-11-21 06:30"),
        ("{campaign:.4} {run:%-d %%}", "Welcome", "Welc 21 %"),
        ("Daily {{}}", "Welcome", "Daily {}"),
    ],
)
def test_name_of_group_has_campaign_and_planned_time(
    template: str, campaign: str, name: str
) -> None:
    assert group_name(RefreshOptions(group_name=template).group_name, campaign, RUN) == name


def test_long_name_is_shortened_and_stays_unique() -> None:
    campaigns = [f"{'N' * 399}{number}" for number in range(2)]
    suffixes = ["", " (12345678-10)"]
    names = [group_name(USUAL, each, RUN, suffix) for each in campaigns for suffix in suffixes]
    assert len({*names}) == 4
    assert {len(name) for name in names} == {LONGEST_GROUP_NAME}
    assert all(name.startswith("N" * 150) for name in names)
    assert names[0].endswith(" 2026-11-21 06:30")
    assert names[1].endswith(" 2026-11-21 06:30 (12345678-10)")
    twice = group_name("{campaign} / {campaign}", campaigns[0], RUN)
    assert len(twice) in (LONGEST_GROUP_NAME - 1, LONGEST_GROUP_NAME)


@pytest.mark.parametrize(
    "template",
    [
        "{campaign",
        "{}",
        "{0}",
        "{campaign.__class__}",
        "{campaign:d}",
        "{campaign:>9999}",
        "{campaign:{run}}",
        "{campaign!r}",
        "{run:%Q}",
        "{run:%",
        "{run:%}",
        "{run:%n}",
        "{run!s:%Y}",
        "a\nb",
        "\0",
        "",
        " ",
        "x" * 171,
        "{campaign:>171}",
    ],
)
def test_template_that_gives_no_name_is_refused(template: str) -> None:
    with pytest.raises(ValidationError, match="group_name"):
        RefreshOptions(group_name=template)


def test_name_without_a_character_is_refused() -> None:
    with pytest.raises(GroupNameRefused, match="this one has 0"):
        group_name("{campaign}", "\n", RUN)


def test_two_refreshes_of_a_campaign_of_a_long_name_have_groups_of_their_own(
    company: Company, local: Local
) -> None:
    with company.sandbox.context.store.write() as store:
        store.get_one(Campaign, company.seeded.campaign_id).name = "N" * 400
    for short in ("one", "two"):
        refresh = Refresh(id=short, started=RUN, journal=f"journals/{short}")
        found = find_campaign.fn(
            local.account, company.seeded.campaign_id, local.lake, refresh, USUAL, False
        )
        create_group.fn(local.account, found, USUAL, local.lake, refresh)
    _, first, second = company.groups()
    assert len(first) == len(second) == LONGEST_GROUP_NAME
    assert second.endswith("06:30 (two)")

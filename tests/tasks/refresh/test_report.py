"""The page that people read after a refresh."""

import re
import sys
from base64 import b64decode
from datetime import UTC, datetime
from typing import Any

import pytest

from blocks import DataLake, NudgescribeAccount
from tasks.customers.staging import Staged
from tasks.customers.sync import ListDiff
from tasks.customers.upload import GroupRef
from tasks.customers.validate import BrokenRule, Validated
from tasks.export.run_diff import RunDiffSummary
from tasks.refresh import report as tasks
from tasks.refresh.report import RefreshResult, report_refresh, report_sync, sentences
from tasks.refresh.run_shown import RunShown, Sample, SegmentSize

OLD = {
    "campaign_id": "C",
    "campaign": "Spring",
    "run_number": 7,
    "customer_group_id": "g",
    "group": "Spring 2026",
    "extracted": 1_000_000,
    "accepted": 999_988,
    "quarantined": 12,
    "quarantine": "quarantine/campaign_id=C/r.parquet",
    "matched": 120,
    "new": 3,
    "orphaned": 1,
    "customers_in_new": 250,
    "files": 2,
    "rows": 999_988,
    "bytes": 45_600_000,
    "path": "messages/campaign_id=C/run_number=7",
    "seconds": {"upload": 61.25, "rerun": 600.0},
}
"""A result as the first release has stored it."""
RESULT = RefreshResult.model_validate(OLD).model_copy(
    update={
        "broken_rules": [
            BrokenRule(field="age", code="number", rows=3),
            BrokenRule(field="email", code="required", rows=9),
        ],
        "previous_run": 6,
        "published_at": datetime(2026, 11, 21, 6, 34, tzinfo=UTC),
        "run_diff": RunDiffSummary(
            since=6, added=5000, removed=1000, changed=3980, unchanged=991_008
        ),
    }
)
SHOWN = RunShown(
    segments=[
        SegmentSize(name="plan = basic", customers=499_994, is_new=False),
        SegmentSize(name="plan = student", customers=250, is_new=True),
    ],
    samples=[Sample(segment="plan = student", message="Dear Alex,\nwelcome.\n")],
)
PAGE = """\
# Spring: run 7

Run 7 was published on 2026-11-21 at 06:34 UTC: 999,988 messages, one for each customer of the list.

[Open the campaign](https://example.com/c/C)

## What came in

| | rows |
|---|---:|
| from the CRM | 1,000,000 |
| accepted and uploaded | 999,988 |
| rejected | 12 (less than 0.1 %) |

The customer group is *Spring 2026*.

![Rows](PICTURE)

## What was rejected and why

| field | what is wrong | rows |
|---|---|---:|
| email | a value is required | 9 |
| age | not a decimal number | 3 |

Fix these rows in the CRM; they are listed in

```
/LAKE/quarantine/campaign_id=C/r.parquet
```

## What changed in segments

| | segments | customers |
|---|---:|---:|
| matched, messages copied | 120 | 999,738 (more than 99.9 %) |
| new, messages written and reviewed | 3 | 250 (less than 0.1 %) |
| removed, no customers left | 1 | |

![Segments](PICTURE)

## Segments and messages

| largest segments | | customers |
|---|---|---:|
| plan = basic | | 499,994 (50 %) |
| plan = student | new | 250 (less than 0.1 %) |

Messages as made-up customers would receive them:

**plan = student**

> Dear Alex,
> welcome.

## Compared with the last run

| | run 6 | run 7 | |
|---|---:|---:|---:|
| customers | 995,988 | 999,988 | +4,000 (0.4 %) |
| segments | 121 | 123 | +2 (1.7 %) |

Of the 994,988 customers in both runs, 3,980 received a different message: **0.4 %**. \
5,000 customers were added, 1,000 removed.

![Messages](PICTURE)

## The last 2 runs

![Messages of the last runs](PICTURE)

| run | messages | changed | added | removed | new segments |
|---:|---:|---:|---:|---:|---:|
| 6 | 995,988 | – | – | – | – |
| 7 | 999,988 | 3,980 | 5,000 | 1,000 | 3 |

## Technical details

From the beginning of the refresh, with all waits:

| | seconds |
|---|---:|
| upload | 61.2 |
| rerun | 600.0 |
| together | 661.2 |

Files in the lake: 2, together 45.6 MB, in

```
/LAKE/messages/campaign_id=C/run_number=7
```
"""


ACCOUNT = NudgescribeAccount.model_construct(campaign_url="https://example.com/c/{campaign_id}")
LAKE = DataLake(root="/LAKE")


@pytest.fixture
def shown(monkeypatch: pytest.MonkeyPatch) -> dict[str, str]:
    """The pages shown, by their keys."""
    pages: dict[str, str] = {}

    def show(page: str, *, key: str, description: str) -> None:
        pages[key.rpartition("-")[0]] = page

    monkeypatch.setattr(tasks, "show_page", show)
    return pages


def page_of(shown: dict[str, str], **changes: Any) -> str:
    report_refresh.fn(ACCOUNT, LAKE, RESULT.model_copy(update=changes), SHOWN)
    return re.sub(r"data:image/png;base64,[\w+/=]+", "PICTURE", shown["refresh-spring"])


def test_report_page_is_complete(shown: dict[str, str]) -> None:
    assert page_of(shown) == PAGE


def test_report_image_is_small(shown: dict[str, str]) -> None:
    page_of(shown)
    encoded = re.search(r"base64,([\w+/=]+)\)", shown["refresh-spring"])
    assert encoded
    assert b64decode(encoded[1]).startswith(b"\x89PNG")
    assert len(shown["refresh-spring"]) < 80_000


@pytest.mark.parametrize(
    ("module", "loaded", "sentence"),
    [
        ("matplotlib", None, 'the extra charts draws it, `pip install "nudgeflow[charts]"`.'),
        ("matplotlib.figure", object(), "The chart could not be drawn: ImportError."),
    ],
)
def test_report_without_a_chart_says_why(
    shown: dict[str, str],
    monkeypatch: pytest.MonkeyPatch,
    caplog: pytest.LogCaptureFixture,
    module: str,
    loaded: object,
    sentence: str,
) -> None:
    monkeypatch.setitem(sys.modules, module, loaded)
    page = page_of(shown)
    assert "PICTURE" not in page
    assert page.count(sentence) == 4
    logged = [each.getMessage() for each in caplog.records if each.levelname == "WARNING"]
    assert logged == (["A chart could not be drawn: ImportError"] * 4 if loaded else [])


@pytest.mark.parametrize(
    ("changes", "said", "unsaid"),
    [
        pytest.param(
            {"run_diff": RunDiffSummary()},
            "No earlier run of this campaign is in the lake.",
            "| customers | 99",
            id="first run",
        ),
        pytest.param(
            {"run_diff": RunDiffSummary(since=6, problem="part_1 is not in the lake.")},
            "could not be compared with earlier ones: part_1 is not in the lake.",
            "| customers | 99",
            id="not compared",
        ),
        pytest.param(
            {"previous_run": 5}, "| customers | 995,988 |", "| segments | 121 |", id="older run"
        ),
        pytest.param(
            {"rejected": 0, "quarantine": None, "broken_rules": []},
            "| rejected | 0 (0 %) |",
            "What was rejected",
            id="none rejected",
        ),
    ],
)
def test_report_says_what_there_is(
    shown: dict[str, str], changes: dict[str, Any], said: str, unsaid: str
) -> None:
    page = page_of(shown, **changes)
    assert said in page
    assert unsaid not in page


def test_report_sums_up_many_rules(shown: dict[str, str]) -> None:
    rules = [BrokenRule(field=f"f|{number}", code="nul", rows=100 - number) for number in range(25)]
    page = page_of(shown, broken_rules=rules)
    assert r"| f\|0 | the text holds a NUL character | 100 |" in page
    assert page.count("NUL character") == 20
    assert "| other fields | | 390 |" in page
    assert "A row that breaks several rules is counted for each of them." in page


def test_report_accepts_result_of_earlier_release(shown: dict[str, str]) -> None:
    old = RefreshResult.model_validate(OLD)
    assert (old.broken_rules, old.run_diff, old.published_at) == ([], RunDiffSummary(), None)
    report_refresh.fn(ACCOUNT, LAKE, old, RunShown())
    assert "\n\nRun 7: 999,988 messages, one for each customer" in shown["refresh-spring"]


@pytest.mark.parametrize(
    ("matched", "new", "orphaned", "said"),
    [
        (1, 0, 0, "Its only segment is not new; none was removed."),
        (0, 1, 2, "Its only segment is new; 2 were removed."),
        (12, 0, 1, "None of its 12 segments is new; 1 was removed."),
        (11, 1, 0, "1 of its 12 segments is new; none was removed."),
        (8, 4, 3, "4 of its 12 segments are new; 3 were removed."),
    ],
)
def test_sentences_count_segments_as_people_do(
    matched: int, new: int, orphaned: int, said: str
) -> None:
    segments = {"matched": matched, "new": new, "orphaned": orphaned}
    rows = {"extracted": 1, "rejected": 1, "rows": 1}
    came, run, *_ = sentences(RESULT.model_copy(update={**segments, **rows}))
    assert came == "1 row came from the CRM; 1 was rejected."
    assert run == f"Run 7 has 1 message. {said}"


def test_sync_report_page_is_complete(shown: dict[str, str]) -> None:
    group = GroupRef(workspace_id="W", customer_group_id="G", name="*Spring*", size=990)
    validated = Validated(
        accepted=Staged(path="a", rows=999, sha256="0"),
        extracted=1000,
        rejected=1,
        broken_rules=[BrokenRule(field="id", code="duplicate", rows=1)],
        quarantine="quarantine/campaign_id=C/r.parquet",
        duplicates="last",
        key="id",
        fingerprint="f",
    )
    lake = DataLake(root="/lake")
    report_sync.fn(lake, group, validated, ListDiff(added=10, changed=20, removed=1, unchanged=969))
    assert (
        shown["sync-spring"]
        == """\
# Customer group *\\*Spring\\**

| | customers |
|---|---:|
| extracted from the CRM | 1,000 |
| rejected | 1 (0.1 %) |
| added | 10 |
| changed | 20 |
| removed, no longer in the list | 1 |
| unchanged | 969 |

## What was rejected and why

| field | what is wrong | rows |
|---|---|---:|
| id | the customer identifier occurs more than once in the list | 1 |

Of customers who are listed more than once, the last row was taken, unless it broke a rule itself.

Fix these rows in the CRM; they are listed in

```
/lake/quarantine/campaign_id=C/r.parquet
```
"""
    )

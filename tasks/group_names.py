"""Names of the customer groups that refreshes make, by a template that a person has written."""

import re
from datetime import UTC, datetime
from hashlib import sha256
from string import Formatter

from nudgescribe.contract import LONGEST_GROUP_NAME
from nudgescribe.errors import NudgeflowError

PLACEHOLDERS = {"campaign", "run"}
LONGEST_SUFFIX = 30
"""Room for what tells two groups of one name apart."""
_CONTROL = r"\x00-\x1f\x7f-\x9f\u2028\u2029\ud800-\udfff"
_TEXT_FORMAT = re.compile(r"([^{}]?[<>^])?\d{0,3}(\.\d{1,3})?")
_TIME_FORMAT = re.compile(r"([^%{}]|%-?[aAwdbBmyYHIMpSfzZjUWcxXGuV%])*")
_TRIED = datetime(2000, 12, 31, 23, 59, tzinfo=UTC)


class GroupNameRefused(NudgeflowError):
    """No customer group can have this name."""

    advice = "Nothing was changed at Nudgescribe. Give the group another name, then start again."


def check_template(template: str) -> str:
    """Return a template in which {campaign} and {run} stand for the campaign's name and a time.

    Raises ValueError if it is none, or can only give names that no group may have.
    """
    if re.search(f"[{_CONTROL}]", template):
        raise ValueError("a group's name has no line breaks or other control characters")
    for _, name, spec, conversion in Formatter().parse(template):
        if name is None:
            continue
        if name not in PLACEHOLDERS:
            raise ValueError("only {campaign} and {run} can stand in a group's name")
        known = _TIME_FORMAT if name == "run" else _TEXT_FORMAT
        if conversion or not known.fullmatch(spec or ""):
            raise ValueError(f"{{{name}:…}} has a format that Python does not know")
    name = template.format(campaign="x", run=_TRIED)
    if not name.strip() or len(name) > LONGEST_GROUP_NAME - LONGEST_SUFFIX:
        raise ValueError(
            "a group's name must not be empty, and may have up to "
            f"{LONGEST_GROUP_NAME - LONGEST_SUFFIX} characters beside the campaign's name"
        )
    return template


def group_name(template: str, campaign: str, run: datetime, suffix: str = "") -> str:
    """Return the name of a group. If it is too long, the campaign's name in it is cut, and a digest
    added that tells campaigns of the same beginning apart.

    Raises GroupNameRefused.
    """
    campaign = re.sub(f"[{_CONTROL}]+", " ", campaign).strip()
    room = LONGEST_GROUP_NAME - len(suffix)
    name = template.format(campaign=campaign, run=run)
    if len(name) > room:
        digest = sha256(campaign.encode()).hexdigest()[:8]
        for length in range(min(len(campaign), room), -1, -1):
            name = template.format(campaign=f"{campaign[:length]}… {digest}", run=run)
            if len(name) <= room:
                break
    return check_group_name(name + suffix)


def check_group_name(name: str) -> str:
    """Return a name that a group may have. Raises GroupNameRefused."""
    if not name.strip() or len(name) > LONGEST_GROUP_NAME or re.search(f"[{_CONTROL}]", name):
        raise GroupNameRefused(
            f"A group's name has 1 to {LONGEST_GROUP_NAME} characters, on one line; this one has "
            f"{len(name):,}."
        )
    return name

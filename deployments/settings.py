"""What `bootstrap` is told by environment variables. Each may be given as a file that holds the
value, too, by its name and _FILE: the secrets of Docker and Kubernetes.
"""

import json
from collections.abc import Mapping
from difflib import get_close_matches
from logging import getLogger
from pathlib import Path
from typing import Any, TypeVar, get_args, get_origin

from apprise import Apprise
from prefect.blocks.core import Block
from prefect.types import SecretDict
from pydantic import BaseModel, Field, SecretStr, ValidationError, field_validator
from pydantic.fields import FieldInfo

from blocks import DataLake, FileCrm, HubSpotCrm, NudgescribeAccount, SalesforceCrm, SqlCrm
from deployments.server import CALLS, DOWNLOADS, PoolType
from nudgescribe.errors import NudgeflowError

M = TypeVar("M", bound=BaseModel)

PREFIX, FILE = "NUDGEFLOW_", "_FILE"

BLOCKS: dict[str, type[Block]] = {
    "ACCOUNT": NudgescribeAccount,
    "SQL_CRM": SqlCrm,
    "FILE_CRM": FileCrm,
    "HUBSPOT_CRM": HubSpotCrm,
    "SALESFORCE_CRM": SalesforceCrm,
    "LAKE": DataLake,
}
"""A variable for each field: NUDGEFLOW_LAKE_ROOT is the lake's root."""

DEFAULTS = {"ACCOUNT": {"calls_limit": CALLS, "downloads_limit": DOWNLOADS}}

ELSEWHERE = ("CAMPAIGN_ID", "WORKSPACE_ID", "HOME", "SANDBOX_CHAT_KEY")
"""Variables of prefect.yaml and of the sandbox."""


class SettingsWrong(NudgeflowError):
    advice = "Nothing was changed. Correct the variables, then start again."


class Settings(BaseModel):
    """What is no field of a block: NUDGEFLOW_POOL_TYPE is `pool_type`."""

    pool_type: PoolType | None = None
    calls: int | None = Field(default=None, ge=1)
    downloads: int | None = Field(default=None, ge=1)
    notify_url: SecretStr | None = None
    refresh_days: int = Field(default=35, ge=1, le=1000)

    @field_validator("notify_url")
    @classmethod
    def _known_service(cls, url: SecretStr) -> SecretStr:
        # It logs an address it does not know, secrets and all.
        log = getLogger("apprise")
        log.disabled = True
        try:
            known = bool(Apprise(url.get_secret_value()))
        finally:
            log.disabled = False
        if not known:
            raise ValueError("is no address that Apprise knows, such as mailtos:// or jsons://")
        return url


def read(environment: Mapping[str, str]) -> tuple[Settings, dict[str, Block | None]]:
    """The settings, and the block of each entry of BLOCKS, None if no variable gives it.

    Raises SettingsWrong, which says of every variable that is unknown, missing or wrong what it is,
    and no value.
    """
    problems: list[str] = []
    given = _given(environment, problems)
    settings = _made(Settings, "", given, problems)
    blocks = {
        place: _made(kind, f"{place}_", given, problems, DEFAULTS.get(place, {}))
        if any(name in given for name in _fields(kind, f"{place}_"))
        else None
        for place, kind in BLOCKS.items()
    }
    if problems or settings is None:
        raise SettingsWrong(" ".join(problems))
    return settings, blocks


def _given(environment: Mapping[str, str], problems: list[str]) -> dict[str, str]:
    """By name without prefix. An empty variable is none: compose files make such."""
    known = {*ELSEWHERE, *_fields(Settings, "")}
    for place, kind in BLOCKS.items():
        known |= _fields(kind, f"{place}_").keys()
    given: dict[str, str] = {}
    for variable, value in sorted(environment.items()):
        if not variable.startswith(PREFIX) or not value:
            continue
        name = variable.removeprefix(PREFIX)
        if name not in known and name.removesuffix(FILE) in known:
            name = name.removesuffix(FILE)
            try:
                value = Path(value).read_text(encoding="utf-8").rstrip("\r\n")
            except (OSError, ValueError) as error:
                problems.append(f"{variable} names no file to read: {type(error).__name__}.")
            if name in given:
                problems.append(f"{PREFIX}{name} is given twice, by itself and as a file.")
        if name in known:
            given[name] = value
        else:
            near = get_close_matches(name, known, 1)
            hint = f": is it {PREFIX}{near[0]}?" if near else "."
            problems.append(f"{variable} is unknown{hint}")
    return given


def _fields(kind: type[BaseModel], place: str) -> dict[str, tuple[str, FieldInfo]]:
    return {f"{place}{field.upper()}": (field, info) for field, info in kind.model_fields.items()}


def _made(
    kind: type[M],
    place: str,
    given: Mapping[str, str],
    problems: list[str],
    defaults: Mapping[str, str] | None = None,
) -> M | None:
    values: dict[str, Any] = {**(defaults or {})}
    for name, (field, info) in _fields(kind, place).items():
        if name in given:
            try:
                values[field] = json.loads(given[name]) if _is_json(info) else given[name]
            except ValueError:
                problems.append(f"{PREFIX}{name} is no JSON.")
                values[field] = None
    try:
        return kind.model_validate(values)
    except ValidationError as error:
        for each in error.errors(include_input=False, include_context=False, include_url=False):
            name = f"{PREFIX}{place}{str(each['loc'][0]).upper()}"
            missing = each["type"] == "missing"
            problems.append(f"{name} {'is missing' if missing else 'is wrong: ' + each['msg']}.")
    return None


def _is_json(field: FieldInfo) -> bool:
    kinds = (field.annotation, *get_args(field.annotation))
    return any(kind is SecretDict or get_origin(kind) in (dict, list) for kind in kinds)

"""Read what `bootstrap` sets up from NUDGEFLOW_* variables.

Each variable may be a file instead: NUDGEFLOW_X_FILE names a file that holds the value of
NUDGEFLOW_X, as secrets of Docker and Kubernetes do. An empty variable counts as not set, since
compose files make such.
"""

from collections.abc import Iterable, Mapping
from difflib import get_close_matches
from logging import getLogger
from pathlib import Path
from typing import Any, get_args

from apprise import Apprise
from prefect.blocks.core import Block
from prefect.types import SecretDict
from pydantic import Field, HttpUrl, SecretStr, ValidationError, create_model, field_validator
from pydantic.fields import FieldInfo
from pydantic_core import ErrorDetails
from pydantic_settings import BaseSettings, EnvSettingsSource, SettingsConfigDict

from blocks import (
    CrmSource,
    DataLake,
    FileCrm,
    HubSpotCrm,
    NudgescribeAccount,
    SalesforceCrm,
    SqlCrm,
    SqlTable,
)
from blocks.sources import ADDED
from deployments.server import CALLS, DOWNLOADS, PoolType
from nudgescribe.errors import NudgeflowError, describe_invalid

PREFIX, FILE = "NUDGEFLOW_", "_FILE"

ELSEWHERE = ("CAMPAIGN_ID", "WORKSPACE_ID", "HOME", "SANDBOX_CHAT_KEY")
"""Variables of prefect.yaml and of the sandbox."""


class SettingsWrong(NudgeflowError):
    """Variables are unknown, missing or wrong."""

    advice = "Nothing was changed. Correct the variables, then start again."


class Settings(BaseSettings):
    """What to set up: NUDGEFLOW_POOL_TYPE is `pool_type`, NUDGEFLOW_LAKE_ROOT the lake's `root`."""

    model_config = SettingsConfigDict(
        env_prefix=PREFIX,
        env_nested_delimiter="_",
        env_nested_max_split=1,
        validate_default=False,
    )

    account: NudgescribeAccount | None = None
    sql_crm: SqlCrm | None = None
    file_crm: FileCrm | None = None
    hubspot_crm: HubSpotCrm | None = None
    salesforce_crm: SalesforceCrm | None = None
    lake: DataLake | None = None
    sql_table: SqlTable | None = None
    pool_type: PoolType | None = None
    calls: int | None = Field(default=None, ge=1)
    downloads: int | None = Field(default=None, ge=1)
    notify_url: SecretStr | None = None
    refresh_days: int = Field(default=35, ge=1, le=1000)
    docs_url: HttpUrl | None = None

    @classmethod
    def settings_customise_sources(cls, *args: Any, **sources: Any) -> tuple[Any, ...]:
        """Take no variables but those that `read` is given."""
        return (sources["init_settings"],)

    @field_validator("account", mode="before")
    @classmethod
    def _name_limits(cls, fields: dict[str, Any]) -> dict[str, Any]:
        return {"calls_limit": CALLS, "downloads_limit": DOWNLOADS, **fields}

    @field_validator("notify_url")
    @classmethod
    def _check_service(cls, url: SecretStr) -> SecretStr:
        # Apprise logs an address that it does not know, secrets and all.
        log = getLogger("apprise")
        log.disabled = True
        try:
            known = bool(Apprise(url.get_secret_value()))
        finally:
            log.disabled = False
        if not known:
            raise ValueError("no address that Apprise knows, such as mailtos:// or jsons://")
        return url


def _with_sources(kinds: Iterable[type[CrmSource]]) -> type[Settings]:
    """Return the settings with a block for each source that a package adds.

    A source stays out whose variables could be those of another setting.
    """
    added: dict[str, type[CrmSource]] = {}
    for kind in kinds:
        name = kind.get_block_type_slug().replace("-", "_")
        others = [f"{each}_" for each in (*Settings.model_fields, *added)]
        if not any(each.startswith(f"{name}_") or f"{name}_".startswith(each) for each in others):
            added[name] = kind
    fields: Any = {name: (kind | None, None) for name, kind in added.items()}
    return create_model("SettingsWithSources", __base__=Settings, **fields) if fields else Settings


_SETTINGS = _with_sources(ADDED)

BLOCKS: dict[str, type[Block]] = {
    name: kind
    for name, field in _SETTINGS.model_fields.items()
    for kind in get_args(field.annotation)
    if Block.is_block_class(kind)
}
"""The settings that are blocks, with the class of each."""

KNOWN = {
    *ELSEWHERE,
    *(name.upper() for name in _SETTINGS.model_fields.keys() - BLOCKS.keys()),
    *(f"{name}_{field}".upper() for name, kind in BLOCKS.items() for field in kind.model_fields),
}
"""Every variable, without PREFIX."""


class _Variables(EnvSettingsSource):
    """Build the values of Settings from variables."""

    def __init__(self, variables: Mapping[str, str]) -> None:
        super().__init__(_SETTINGS)
        self.env_vars = {f"{PREFIX}{name}".lower(): value for name, value in variables.items()}

    def field_is_complex(self, field: FieldInfo) -> bool:
        """Decode mappings of secrets, too."""
        secret = SecretDict in (field.annotation, *get_args(field.annotation))
        return secret or super().field_is_complex(field)

    def decode_complex_value(self, field_name: str, field: FieldInfo, value: Any) -> Any:
        """Leave what is no JSON to validation, which reports all problems at once."""
        try:
            return super().decode_complex_value(field_name, field, value)
        except ValueError:
            return value


def read(environment: Mapping[str, str]) -> Settings:
    """Return the settings of an environment.

    Raises SettingsWrong, which names every variable that is unknown, missing or wrong, without its
    value.
    """
    problems: list[str] = []
    values = _Variables(_given(environment, problems))()
    settings = None
    try:
        settings = _SETTINGS.model_validate(values)
    except ValidationError as error:
        problems += map(_describe, error.errors(include_context=False, include_url=False))
    if problems or settings is None:
        raise SettingsWrong(" ".join(problems))
    return settings


def _given(environment: Mapping[str, str], problems: list[str]) -> dict[str, str]:
    """Return the values by the variables' names without PREFIX, files read."""
    given: dict[str, str] = {}
    for variable, value in sorted(environment.items()):
        name = variable.removeprefix(PREFIX)
        if name == variable or not value:
            continue
        if name in KNOWN:
            given[name] = value
        elif (of := name.removesuffix(FILE)) in KNOWN:
            if of in given:
                problems.append(f"{PREFIX}{of} is given twice, by itself and as a file.")
            given[of] = _content(variable, value, problems)
        else:
            near = get_close_matches(name, KNOWN, 1)
            hint = f": is it {PREFIX}{near[0]}?" if near else "."
            problems.append(f"{variable} is unknown{hint}")
    return given


def _content(variable: str, path: str, problems: list[str]) -> str:
    try:
        return Path(path).read_text(encoding="utf-8").rstrip("\r\n")
    except (OSError, ValueError) as error:
        problems.append(f"{variable} names no file to read: {type(error).__name__}.")
        return ""


def _describe(error: ErrorDetails) -> str:
    """Name the variable and what is wrong with it, never its value."""
    location = error["loc"][: 2 if error["loc"][0] in BLOCKS else 1]
    variable = PREFIX + "_".join(map(str, location)).upper()
    if error["type"] == "missing":
        return f"{variable} is missing."
    problem = describe_invalid(error)
    undecoded = error["type"] in ("dict_type", "list_type") and isinstance(error["input"], str)
    return f"{variable} is wrong: {problem}{', as JSON' if undecoded else ''}."

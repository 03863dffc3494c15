"""The block for a Nudgescribe account, and its client."""

import re
from contextlib import nullcontext
from typing import Any
from urllib.parse import quote

import httpx
from prefect.blocks.abstract import CredentialsBlock
from pydantic import Field, SecretStr, ValidationInfo, field_validator

from blocks.documentation import documentation_url
from blocks.limits import get_shared_limit
from blocks.saved import FORM, SavedBlock
from blocks.secrets import HINT, SecretUnusable, is_reference, read_secret
from blocks.urls import check_base_url, check_url, is_secure
from nudgescribe import reach
from nudgescribe.auth import Credentials
from nudgescribe.client import Listed, NudgescribeClient
from nudgescribe.contract import WorkspaceCampaigns, is_client_ip
from nudgescribe.errors import ServiceUnreachable
from nudgescribe.retry import RetryPolicy

PLACEHOLDER = "{campaign_id}"
_HEADER = re.compile(r"[!-~]([ -~]*[!-~])?")
_NO_HEADER = "is empty, or holds a line break or characters that no header has"
_PROFILE_KEY = re.compile(r"[\w+/-]{43}=", re.ASCII)
_NO_PROFILE_KEY = (
    "is no profile key: one has 44 characters, letters, digits, - and _ with a = at the end, as "
    "Nudgescribe issues it with the account's API key"
)
_AT_ONCE: dict[str, Any] = {
    "timeout": reach.SECONDS,
    "call_seconds": reach.SECONDS,
    "retry": RetryPolicy(attempts=1),
    "calls": nullcontext,  # a slot of a limit would be waited for
    "downloads": nullcontext,
}
CALL_SECONDS = 300.0
"""Most seconds for a whole call, or twice the time-out of one wait if that is more."""


class NudgescribeAccount(SavedBlock, CredentialsBlock):
    """
    Connection and credentials for Nudgescribe.

    Example:
        ```python
        from blocks import NudgescribeAccount

        account = NudgescribeAccount.load("BLOCK_NAME")
        with account.get_client() as client:
            client.campaigns()
        ```
    """

    model_config = FORM

    _block_type_name = "Nudgescribe account"
    _documentation_url = documentation_url("your-own-account-in-ten-minutes")

    base_url: str = Field(
        default="https://client-api.nudgescribe.com",
        description="URL of the API, without /v1.",
    )
    email: str = Field(description="The user's email address.")
    password: SecretStr = Field(description=f"The user's password. {HINT}")
    api_key: SecretStr = Field(description=f"The account's API key, sent as x-api-key. {HINT}")
    api_code: SecretStr = Field(
        description=f"The account's API code, sent in x-auth-context. {HINT}"
    )
    profile_key: SecretStr | None = Field(
        default=None,
        description=f"Key that decrypts customer profiles, to read them back. {HINT}",
    )
    client_ip: str | None = Field(
        default=None,
        description="IP address that Nudgescribe's audit log shows for calls; by default this "
        "machine's.",
    )
    connect_seconds: float = Field(
        default=10, gt=0, description="Time-out for connecting, in seconds."
    )
    answer_seconds: float = Field(
        default=120, gt=0, description="Time-out for each part of an answer, in seconds."
    )
    calls_limit: str | None = Field(
        default=None,
        min_length=1,
        description="Name of the global concurrency limit for all calls of Nudgescribe.",
    )
    downloads_limit: str | None = Field(
        default=None,
        min_length=1,
        description="Name of the global concurrency limit for all downloads of pages.",
    )
    campaign_url: str | None = Field(
        default=None,
        description="URL of a campaign's page in the platform, with {campaign_id} in it, for links "
        "that reviewers follow.",
    )

    allow_http: bool = Field(
        default=False,
        validate_default=True,
        description="Take URLs that begin with http://, for a sandbox in a network of one's own. "
        "Whoever can listen there reads password and keys.",
    )

    @field_validator("api_key", "api_code")
    @classmethod
    def _fits_in_a_header(cls, secret: SecretStr) -> SecretStr:
        # httpx's own error about a header holds its value.
        text = secret.get_secret_value()
        if not is_reference(text) and not _HEADER.fullmatch(text):
            raise ValueError(_NO_HEADER)
        return secret

    @field_validator("profile_key")
    @classmethod
    def _is_key(cls, secret: SecretStr | None) -> SecretStr | None:
        text = secret.get_secret_value() if secret else ""
        if text and not is_reference(text) and not _PROFILE_KEY.fullmatch(text):
            raise ValueError(_NO_PROFILE_KEY)
        return secret

    @field_validator("client_ip")
    @classmethod
    def _is_address(cls, ip: str | None) -> str | None:
        if ip is not None and not is_client_ip(ip):
            raise ValueError("is no IPv4 or IPv6 address, without a zone such as %eth0")
        return ip

    @field_validator("base_url")
    @classmethod
    def _ends_before_version(cls, url: str) -> str:
        return check_base_url(url, "v1")

    @field_validator("campaign_url")
    @classmethod
    def _has_one_placeholder(cls, url: str | None) -> str | None:
        if url is not None:
            before, placeholder, after = url.partition(PLACEHOLDER)
            if not placeholder or {"{", "}"} & {*before, *after}:
                raise ValueError(f"must contain {PLACEHOLDER} once, and no other braces")
            check_url(f"{before}x{after}")
        return url

    @field_validator("allow_http")
    @classmethod
    def _sends_nothing_in_clear(cls, allowed: bool, others: ValidationInfo) -> bool:
        for name in ("base_url", "campaign_url"):
            url = others.data.get(name)
            if url and not (allowed or is_secure(url.replace(PLACEHOLDER, "x"))):
                raise ValueError(f"{name} must begin with https://, unless this is true")
        return allowed

    def link_to(self, campaign_id: str) -> str | None:
        """Return the URL of a campaign's page in the platform; None if the block has none."""
        return self.campaign_url and self.campaign_url.replace(PLACEHOLDER, quote(campaign_id, ""))

    def get_client(self, *args: Any, **kwargs: Any) -> NudgescribeClient:
        """Return a client of this account; keyword arguments go to `NudgescribeClient`.

        Raises SecretUnusable.
        """
        credentials = Credentials(
            email=self.email,
            password=self._read(self.password, "password"),
            api_key=self._read_header(self.api_key, "api_key"),
            api_code=self._read_header(self.api_code, "api_code"),
            profile_key=self._read_profile_key(),
        )
        timeout = httpx.Timeout(self.answer_seconds, connect=self.connect_seconds)
        names = {"calls": self.calls_limit, "downloads": self.downloads_limit}
        options: dict[str, Any] = {
            "client_ip": self.client_ip,
            "timeout": timeout,
            "call_seconds": max(CALL_SECONDS, 2 * self.answer_seconds),
            **{kind: get_shared_limit(name).slot for kind, name in names.items() if name},
        }
        return NudgescribeClient(self.base_url, credentials, **{**options, **kwargs})

    def check_reachable(self) -> None:
        """Check that a service answers at all, within 10 seconds. Raises ServiceUnreachable."""
        if obstacle := reach.find_obstacle(self.base_url):
            raise ServiceUnreachable(f"{self.block_slug}: {obstacle}.")

    def check(self) -> Listed[WorkspaceCampaigns]:
        """Check that the service answers and takes the credentials, within 10 seconds each; return
        the account's campaigns.

        Raises ServiceUnreachable, WrongAddress, AuthError, SecretUnusable.
        """
        self.check_reachable()
        with self.get_client(**_AT_ONCE) as client:
            return client.campaigns()

    def _read(self, secret: SecretStr, name: str) -> str:
        return read_secret(secret, f"{self.block_slug}, {name}")

    def _read_profile_key(self) -> str | None:
        if not self.profile_key:
            return None
        key = self._read(self.profile_key, "profile_key")
        if not _PROFILE_KEY.fullmatch(key):
            raise SecretUnusable(f"{self.block_slug}, profile_key: {_NO_PROFILE_KEY}.")
        return key

    def _read_header(self, secret: SecretStr, name: str) -> str:
        value = self._read(secret, name)
        if not _HEADER.fullmatch(value):
            raise SecretUnusable(f"{self.block_slug}, {name}: {_NO_HEADER}.")
        return value

"""A Nudgescribe account, and the client that calls it."""

from typing import Any

import httpx
from prefect.blocks.abstract import CredentialsBlock
from pydantic import Field, SecretStr

from blocks.about import LOGO_URL, documentation
from nudgescribe.auth import Credentials
from nudgescribe.client import NudgescribeClient


class NudgescribeAccount(CredentialsBlock):
    """
    How to reach Nudgescribe and as whom.

    Example:
        ```python
        from blocks import NudgescribeAccount

        account = NudgescribeAccount.load("BLOCK_NAME")
        with account.get_client() as client:
            client.campaigns()
        ```
    """

    _block_type_name = "Nudgescribe account"
    _logo_url = LOGO_URL
    _documentation_url = documentation("your-own-account")

    base_url: str = Field(
        default="https://client-api.nudgescribe.com",
        description="Where the API is, without /v1.",
    )
    email: str = Field(description="The user's email address.")
    password: SecretStr = Field(description="The user's password.")
    api_key: SecretStr = Field(description="The account's API key, sent as x-api-key.")
    api_code: SecretStr = Field(description="The account's API code, sent in x-auth-context.")
    profile_key: SecretStr | None = Field(
        default=None, description="The key that opens customer profiles, if they are read back."
    )
    client_ip: str = Field(
        default="127.0.0.1", description="The address Nudgescribe's audit log shows for the calls."
    )
    connect_seconds: float = Field(default=10, gt=0, description="Time-out for connecting.")
    answer_seconds: float = Field(
        default=120, gt=0, description="Time-out for each wait on the service while it answers."
    )

    def get_client(self, *args: Any, **kwargs: Any) -> NudgescribeClient:
        """A client of this account; keyword arguments go to `NudgescribeClient`."""
        credentials = Credentials(
            email=self.email,
            password=self.password.get_secret_value(),
            api_key=self.api_key.get_secret_value(),
            api_code=self.api_code.get_secret_value(),
            profile_key=self.profile_key.get_secret_value() if self.profile_key else None,
        )
        timeout = httpx.Timeout(self.answer_seconds, connect=self.connect_seconds)
        return NudgescribeClient(
            self.base_url, credentials, client_ip=self.client_ip, timeout=timeout, **kwargs
        )

"""Passwords and tokens: none but a genuine access token opens an endpoint."""

import json
from base64 import urlsafe_b64encode
from collections.abc import Callable
from importlib.util import find_spec, module_from_spec
from time import time
from typing import Any
from uuid import uuid4

import httpx
import jwt

from sandbox.api import security
from tests.conformance.wire import CAMPAIGN_LIST, Endpoint, refusal
from tests.sandbox.api.security.tenants import (
    AUTHENTICATED,
    WITH_IDS,
    Tenant,
    check_refused,
    check_same,
    on_one_database,
    paired,
    unharmed,
)

Claims = dict[str, Any]
Forge = Callable[[str, Claims, bytes], str]
"""Makes a token from a genuine one, its claims, and the account's secret."""


def test_password_is_verified_at_the_cost_of_its_hash() -> None:
    """Another process hashes at a higher cost than the tests' own."""
    spec = find_spec(security.__name__)
    assert spec is not None
    assert spec.loader is not None
    another = module_from_spec(spec)
    spec.loader.exec_module(another)
    hashed = another.hash_password("right")
    assert hashed.startswith(f"{2**14}:")
    assert security.verify_password("right", hashed)
    assert not security.verify_password("wrong", hashed)


def encoded(content: bytes) -> str:
    return urlsafe_b64encode(content).rstrip(b"=").decode()


def signed(key: bytes | None = None, algorithm: str = "HS256", **changes: object) -> Forge:
    """Sign the claims with some of them changed, or left out if None."""

    def forge(token: str, claims: Claims, secret: bytes) -> str:
        changed = {name: each for name, each in {**claims, **changes}.items() if each is not None}
        return jwt.encode(changed, key or secret, algorithm)

    return forge


def of_another_account(token: str, claims: Claims, secret: bytes) -> str:
    head, _, signature = token.split(".")
    changed = json.dumps({**claims, "account_id": str(uuid4())})
    return f"{head}.{encoded(changed.encode())}.{signature}"


def with_header(header: bytes) -> Forge:
    return lambda token, claims, key: f"{encoded(header)}.{token.partition('.')[2]}"


def with_claims(claims: bytes) -> Forge:
    def forge(token: str, genuine: Claims, secret: bytes) -> str:
        head, _, signature = token.split(".")
        return f"{head}.{encoded(claims)}.{signature}"

    return forge


TOKENS: dict[str, Forge] = {
    "expired": signed(exp=int(time()) - 1),
    "endless": signed(exp=None),
    "expires as text": signed(exp="never"),
    "not yet": signed(nbf=int(time()) + 3600),
    "without account": signed(account_id=None),
    "account is a number": signed(account_id=7),
    "without type": signed(type=None),
    "account is another": signed(account_id=str(uuid4())),
    "another key": signed(b"another key that is as long as a key must be: 64 bytes, for HS512"),
    "HS512": signed(algorithm="HS512"),
    "HS384": signed(algorithm="HS384"),
    "claims are deep": with_claims(b"[" * 20_000),
    "claims are no JSON": with_claims(b"\xff{"),
    "unsigned": lambda token, claims, key: jwt.encode(claims, "", "none"),
    "unsigned, with a signature": with_header(b'{"alg":"none","typ":"JWT"}'),
    "algorithm is a list": with_header(b'{"alg":["HS256"]}'),
    "another algorithm": with_header(b'{"alg":"RS256","typ":"JWT"}'),
    "header is no object": with_header(b"[]"),
    "header is no JSON": with_header(b"\xff{"),
    "header is deep": with_header(b"[" * 20_000),
    "another account": of_another_account,
    "signature cut": lambda token, claims, key: token[:-2],
    "no signature": lambda token, claims, key: token.rpartition(".")[0] + ".",
    "two parts": lambda token, claims, key: token.rpartition(".")[0],
    "twice": lambda token, claims, key: f"{token} {token}",
    "dots": lambda token, claims, key: "..",
}


def forged(tenant: Tenant, kind: str, forge: Forge) -> str:
    """Return an authorization header with a token that is nearly the tenant's own."""
    keys, token = tenant.company.sandbox.settings.keys, tenant.tokens[f"{kind}_token"]
    secret = security.account_secret(keys, tenant.company.seeded.account_id)
    return f"Bearer {forge(token, jwt.decode(token, secret, ['HS256']), secret)}"


def check_auth_error(answer: httpx.Response) -> None:
    assert refusal(answer) == (403, "auth error")


@on_one_database
@paired(TOKENS, AUTHENTICATED)
def test_forged_token_is_an_auth_error(
    ours: Tenant, case: Forge, endpoints: list[Endpoint]
) -> None:
    with unharmed(ours):
        for endpoint in endpoints:
            check_auth_error(ours.send(endpoint, authorization=forged(ours, "access", case)))
        refresh = {"authorization": forged(ours, "refresh", case)}
        check_auth_error(ours.http.get("/v1/auth", headers=refresh))


def test_token_of_an_unknown_account_finds_nothing(ours: Tenant) -> None:
    unknown_account = str(uuid4())
    secret = security.account_secret(ours.company.sandbox.settings.keys, unknown_account)
    bearer = forged(ours, "access", signed(secret, account_id=unknown_account))
    as_unknown = {"authorization": bearer, "x_api_key": None}
    with unharmed(ours):
        answer = ours.send(CAMPAIGN_LIST, **as_unknown)
        assert answer.json() == {"workspaces": []}
        check_refused(ours.send(CAMPAIGN_LIST, authorization=bearer), 403)
        for endpoint in WITH_IDS:
            unknown = ours.send(endpoint, endpoint.body, **as_unknown)
            check_same(ours.send(endpoint, **as_unknown), unknown)

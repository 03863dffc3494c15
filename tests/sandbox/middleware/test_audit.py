"""The audit log: who called what, from where, when, and how it was answered."""

from datetime import UTC, datetime, timedelta

import httpx
import pytest

from nudgescribe import errors
from tests.conftest import Company, Sandbox
from tests.sandbox.middleware.conftest import Audited


def test_audit_log_has_every_call_with_its_status_and_is_private(
    company: Company, audited: Audited
) -> None:
    company.history()
    before = len(audited())
    assert company.sandbox.settings.audit_file.stat().st_mode & 0o777 == 0o600
    with company.client(client_ip="192.0.2.7") as client:
        client.campaigns()
        with pytest.raises(errors.NotFound):
            client.publish("unknown")
    signed_in, listed, refused = audited()[before:]
    assert [(each["endpoint"], each["status"]) for each in (signed_in, listed, refused)] == [
        ("POST /v1/auth", 200),
        ("POST /v1/campaign/all", 200),
        ("POST /v1/messages/publish", 404),
    ]
    assert {each["account_id"] for each in (signed_in, listed, refused)} == {
        company.seeded.account_id
    }
    assert signed_in["user_id"] == listed["user_id"] == refused["user_id"]
    assert {each["ip"] for each in (listed, refused)} == {"192.0.2.7"}
    assert abs(datetime.fromisoformat(refused["time"]) - datetime.now(UTC)) < timedelta(minutes=1)


@pytest.mark.parametrize(
    ("sent", "written"),
    [("2001:DB8::1", "2001:DB8::1"), ("1.2.3.4, 5.6.7.8", "1.2.3.4, 5.6.7.8"), ('"\\', '"\\')],
)
def test_audit_log_keeps_the_ip_header_as_it_was_sent(
    sandbox: Sandbox, audited: Audited, sent: str, written: str
) -> None:
    httpx.post(f"{sandbox.url}/v1/campaign/all", headers={"x-ip": sent}, json={})
    entry = audited()[-1]
    assert (entry["ip"], entry["status"]) == (written, 403)


def test_audit_log_does_not_repeat_an_unknown_path(sandbox: Sandbox, audited: Audited) -> None:
    httpx.get(f"{sandbox.url}/v1/Anna/Smith")
    entry = audited()[-1]
    assert (entry["endpoint"], entry["status"], entry["user_id"]) == ("unknown", 404, None)

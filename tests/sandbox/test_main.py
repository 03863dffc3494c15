import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import httpx
import polars as pl
import pytest
import uvicorn

from deployments import local
from deployments.environment import free_port
from nudgescribe.auth import Credentials
from nudgescribe.client import NudgescribeClient
from sandbox.__main__ import main

Seed = Callable[..., dict[str, str]]


@pytest.fixture
def seed(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> Seed:
    """A function that runs `python -m sandbox seed` and returns the object it prints."""

    def run(*options: str) -> dict[str, str]:
        main(["seed", "--data", str(tmp_path), *options])
        return json.loads(capsys.readouterr().out)

    return run


def signed_in(url: str, printed: dict[str, str]) -> NudgescribeClient:
    names = ("email", "password", "api_key", "api_code")
    return NudgescribeClient(url, Credentials(*(printed[name] for name in names)))


def test_serve_accepts_what_seed_prints(seed: Seed, tmp_path: Path) -> None:
    file = tmp_path / "list.csv"
    pl.DataFrame({"id": ["01", "02"], "age": ["7", "8"], "job": ["a", "b"]}).write_csv(file)
    demo, listed = seed(), seed("--list", str(file), "--segments", "job")
    assert list(demo) == [
        "email",
        "password",
        "api_key",
        "api_code",
        "profile_key",
        "account_id",
        "workspace_id",
        "customer_group_id",
        "campaign_id",
    ]
    assert (tmp_path / "keys.json").stat().st_mode & 0o777 == 0o600
    with local.sandbox(tmp_path, free_port()) as url:
        with signed_in(url, demo) as client:
            (run,) = client.rerun_history(demo["campaign_id"])
            assert (run.run_number, run.status) == (1, "Published")
            assert client.count_message_pages(demo["campaign_id"]) == 1
        assert httpx.get(f"{url}/openapi.json").is_success
        with signed_in(url, listed) as client:
            fields = client.list_fields(listed["workspace_id"])
            assert [(field.field_name, field.field_type) for field in fields] == [
                ("id", "string"),
                ("age", "number"),
                ("job", "string"),
            ]
            (row,) = client.fetch_rows(listed["campaign_id"], 0)
    assert (row.customer_id, row.message) == ("01", "Dear customer 01,\nthis is for you (job a).\n")


def test_serve_answers_in_the_envelope_it_is_told(seed: Seed, tmp_path: Path) -> None:
    one = seed()
    who = {name: one[name] for name in ("email", "password")}
    with local.sandbox(tmp_path, free_port(), "--envelope", "data") as url:
        answer = httpx.post(f"{url}/v1/auth", json=who, headers={"x-api-key": one["api_key"]})
        refusal = httpx.post(f"{url}/v1/auth", json=who)
        again = httpx.get(f"{url}/v1/auth/")
    assert (again.status_code, again.content) == (307, b"")
    assert list(answer.json()) == ["data"]
    assert answer.json()["data"]["token_type"] == "Bearer"
    assert refusal.json() == {"message": "Unauthorized"}


def test_seed_reads_a_column_with_an_odd_value_as_numbers(seed: Seed, tmp_path: Path) -> None:
    file = tmp_path / "list.csv"
    ages = ["N/A" if number == 7 else str(number) for number in range(100)]
    rows = {"id": [f"{number}" for number in range(100)], "age": ages, "none": [""] * 100}
    pl.DataFrame({**rows, "job": ["a", "N/A"] * 50}).write_csv(file)
    listed = seed("--list", str(file), "--segments", "job")
    with local.sandbox(tmp_path, free_port()) as url, signed_in(url, listed) as client:
        fields = client.list_fields(listed["workspace_id"])
        rows_of_run_1 = client.fetch_rows(listed["campaign_id"], 0)
    assert [field.field_type for field in fields] == ["string", "number", "string", "string"]
    assert len(rows_of_run_1) == 49  # of the first half, without the one that breaks a rule


@pytest.mark.parametrize(
    ("content", "segments", "told"),
    [
        ("id,plan\n1,a\n2,b\n", "plans", "lacks a column to segment by"),
        ("id,plan\n1,a\n", "plan", "has no customer who keeps the rules"),
        ("id,plan\n1\n", "plan", "row"),
    ],
)
def test_seed_refuses_a_list_in_a_sentence(
    seed: Seed, tmp_path: Path, content: str, segments: str, told: str
) -> None:
    file = tmp_path / "list.csv"
    file.write_text(content)
    with pytest.raises(SystemExit, match=told):
        seed("--list", str(file), "--segments", segments)


def test_seed_of_a_missing_list_says_so(tmp_path: Path) -> None:
    with pytest.raises(local.NotSeeded, match="No such file"):
        local.seed(tmp_path, "--list", str(tmp_path / "nothing.csv"), "--segments", "a")


def test_serve_takes_its_options_and_the_key_of_the_chat_from_the_environment(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    served: list[tuple[Any, dict[str, Any]]] = []
    monkeypatch.setattr(uvicorn, "run", lambda app, **options: served.append((app, options)))
    monkeypatch.setenv("NUDGEFLOW_SANDBOX_CHAT_KEY", "of-the-chat")
    chat = ("--chat-url", "http://127.0.0.1:9/v1", "--chat-model", "small")
    main(["serve", "--data", str(tmp_path), "--port", "9", "--approve-after", "3", *chat])
    ((app, options),) = served
    settings = app.state.context.settings
    app.state.context.store.close()
    assert (options["host"], options["port"]) == ("127.0.0.1", 9)
    assert (settings.approve_after, settings.chat.model) == (3, "small")
    assert "of-the-chat" not in repr(settings)

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
        ("id,plan\n1,a\n2,b\n", "plans", "no column 'plans' .* its columns are: id, plan"),
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


@pytest.mark.parametrize(
    ("name", "why"), [("nothing.csv", "No such file or directory"), ("", "Is a directory")]
)
def test_seed_of_a_list_that_cannot_be_read_says_so(tmp_path: Path, name: str, why: str) -> None:
    told = rf"The list {tmp_path / name} cannot be read: {why}\. Correct"
    with pytest.raises(local.NotSeeded, match=told):
        local.seed(tmp_path, "--list", str(tmp_path / name), "--segments", "a")


def test_seed_refuses_segments_without_a_list(seed: Seed) -> None:
    with pytest.raises(SystemExit, match="name that with --list"):
        seed("--segments", "job")


def test_seed_names_fields_so_that_its_template_can_have_them(seed: Seed, tmp_path: Path) -> None:
    file = tmp_path / "list.csv"
    file.write_text("Kunden-Nr, my job,a.b,m²,_c__d\n1,x,y,4,z\n2,x,y,4,z\n")
    listed = seed("--list", str(file), "--segments", "my job,a.b,m²,_c__d")
    with local.sandbox(tmp_path, free_port()) as url, signed_in(url, listed) as client:
        fields = client.list_fields(listed["workspace_id"])
        (row,) = client.fetch_rows(listed["campaign_id"], 0)
    names = {field.field_name: field.display_name for field in fields}
    assert names == {
        "Kunden_Nr": "Kunden-Nr",
        "my_job": " my job",
        "a_b": "a.b",
        "m": "m²",
        "_c__d": "_c__d",
    }
    assert row.message == "Dear customer 1,\nthis is for you (my_job x, a_b y, m 4, _c__d z).\n"


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

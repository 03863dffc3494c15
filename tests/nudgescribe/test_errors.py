import pickle
from collections.abc import Callable

import httpx
import pytest

from nudgescribe import errors
from nudgescribe.auth import Credentials
from nudgescribe.client import NudgescribeClient
from nudgescribe.rfc4180 import RepeatedColumns
from tests.support.response_tamperer import answering

NOW, LATER = "Sat, 21 Nov 2026 06:30:00 GMT", "Sat, 21 Nov 2026 06:31:17 GMT"


@pytest.mark.parametrize(
    "error",
    [
        errors.NotFound("Campaign 7 is gone."),
        errors.QuotaExceeded("Not now.", 30),
        RepeatedColumns("It repeats a name in the columns 1, 3."),
    ],
)
def test_error_is_the_same_after_pickling(error: errors.NudgeflowError) -> None:
    again = pickle.loads(pickle.dumps(error))
    assert type(again) is type(error)
    assert str(again) == str(error) == f"{error.problem} {error.advice}"
    assert vars(again) == vars(error)


def test_error_is_short_and_on_one_line_whatever_is_in_it() -> None:
    errors_ = [kind("x\n" * 10_000) for kind in kinds(errors.NudgeflowError)]
    assert {len(str(each)) < 2000 and str(each).isprintable() for each in errors_} == {True}
    assert str(errors.NudgeflowError("a\n" * 2)) == "a a"


def kinds(base: type[errors.NudgeflowError]) -> list[type[errors.NudgeflowError]]:
    below = [kind for each in base.__subclasses__() for kind in kinds(each)]
    return [each for each in (base, *below) if each.__init__ in PLAIN]


PLAIN = (errors.NudgeflowError.__init__, errors.Retryable.__init__)


def test_error_tells_first_ten_names_and_the_number_of_the_others() -> None:
    assert errors.first_ten(range(10)) == "0, 1, 2, 3, 4, 5, 6, 7, 8, 9"
    assert errors.first_ten(range(9_011), "; ").endswith("; 8; 9 and 9,001 more")
    assert errors.first_ten(["e\nmail\u200b", "x" * 81]) == f"e\\nmail\\u200b, {'x' * 79}…"
    assert errors.first_ten([]) == ""


@pytest.mark.parametrize(
    ("status", "text", "kind"),
    [
        (400, "Only Published campaigns can be rerun", errors.NotPublished),
        (
            400,
            "All campaign messages must be published before initiating a rerun",
            errors.UnpublishedMessages,
        ),
        (400, "Whatever", errors.BadRequest),
        (401, "Missing required fields.", errors.BadRequest),
        (401, "Campaign not found.", errors.NotFound),
        (401, "Campaign/details not found.", errors.NotFound),
        (401, "Invalid Workspace", errors.NotFound),
        (401, "Unauthorized", errors.AuthError),
        (401, "auth error", errors.AuthError),
        (403, "Unauthorized", errors.AuthError),
        (418, "No full stop", errors.BadRequest),
        (404, "File not found.", errors.NotFound),
        (429, "Usage limit reached.", errors.QuotaExceeded),
        (500, "Failed to parse.", errors.ServerError),
        (500, "Unauthorized", errors.ServerError),
        (502, "", errors.ServerError),
    ],
)
def test_error_of_answer_follows_its_text_and_status(
    status: int, text: str, kind: type[errors.ApiError]
) -> None:
    response = httpx.Response(
        status, json={"message": text}, request=httpx.Request("POST", "https://x/v1/y?key=secret")
    )
    error = errors.from_response(response)
    assert type(error) is kind
    assert str(error).startswith(f"POST /v1/y answered {status}")
    assert kind.advice in str(error)
    assert "secret" not in str(error)


@pytest.mark.parametrize(
    ("body", "text"),
    [
        (b'{"error": "A"}', "A"),
        (b'{"detail": "B"}', "B"),
        (b'{"message": {"customer": "Anna"}, "detail": "C"}', "C"),
        (b'["Anna"]', ""),
        (b'{"customer": "Anna"}', ""),
        (b"<html>Anna</html>", ""),
        (b'{"message": "' + b"x" * 999 + b'"}', "x" * 200),
    ],
)
def test_error_keeps_only_a_short_text_of_the_body(body: bytes, text: str) -> None:
    assert errors.message_of(httpx.Response(400, content=body)) == text


@pytest.mark.parametrize(
    ("headers", "seconds"),
    [
        ({"retry-after": "77"}, 77),
        ({"retry-after": "1.25"}, 1.25),
        # By the service's clock, wherever ours is.
        ({"retry-after": LATER, "date": NOW}, 77),
        ({"retry-after": NOW, "date": LATER}, 0),
        ({"retry-after": LATER}, None),
        ({"retry-after": "soon", "date": NOW}, None),
    ],
)
def test_retry_after_is_in_seconds_from_the_answer(
    headers: dict[str, str], seconds: float | None
) -> None:
    answer = httpx.Response(429, headers=headers, request=httpx.Request("GET", "https://x"))
    assert getattr(errors.from_response(answer), "retry_after", "lacks it") == seconds


MISMATCHES: list[tuple[Callable[[NudgescribeClient], object], bytes, str]] = [
    (
        lambda client: client.count_message_pages("x"),
        b'{"num_files": "Anna"}',
        "/v1/messages/pages does not fit the contract: num_files (int_type)",
    ),
    (lambda client: client.publish("x"), b"<html>Anna</html>", "body (json_invalid)"),
    (
        lambda client: client.rerun_history("x"),
        b'{"runs": [{"status": "Processing"}]}',
        "runs.0.run_number (missing)",
    ),
]


@pytest.mark.parametrize(("call", "content", "problem"), MISMATCHES)
def test_mismatch_names_field_and_not_its_value(
    call: Callable[[NudgescribeClient], object], content: bytes, problem: str
) -> None:
    credentials = Credentials("a", "b", "c", "d")
    with NudgescribeClient("http://x", credentials, transport=answering(content)) as client:
        with pytest.raises(errors.ContractMismatch) as caught:
            call(client)
    assert problem in str(caught.value)
    assert "Anna" not in str(caught.value)
    assert caught.value.__cause__ is None


@pytest.mark.parametrize(
    ("number", "said"),
    [(0, "0 rows were"), (1, "1 row was"), (2, "2 rows were"), (1_000, "1,000 rows were")],
)
def test_counted_is_singular_for_one(number: int, said: str) -> None:
    assert errors.counted(number, "row", "was") == said


@pytest.mark.parametrize(("number", "said"), [(0, "none was"), (1, "1 was"), (2, "2 were")])
def test_counted_without_a_noun_is_none_for_nothing(number: int, said: str) -> None:
    assert errors.counted(number, verb="was") == said

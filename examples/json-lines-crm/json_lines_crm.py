"""Customer lists from an API that answers with a JSON object a line."""

from __future__ import annotations

import json
from collections.abc import Iterable, Iterator
from tempfile import TemporaryFile
from typing import Any

from pydantic import Field, SecretStr

from blocks import CrmSource, SourceError
from blocks.crm.saas.http import Api, bearer
from blocks.iterators import batched
from blocks.secrets import HINT, read_secret
from blocks.urls import SecureUrl
from nudgescribe.lazy import pa

ROWS_AT_ONCE = 10_000


class JsonLinesCrm(CrmSource):
    """The customer list is what an API answers, a JSON object a line."""

    _block_type_name = "JSON lines CRM"

    base_url: SecureUrl = Field(description="Where the API is.")
    path: str = Field(default="/customers", description="The list's path.")
    token: SecretStr = Field(description=f"The API's token. {HINT}")
    columns: list[str] = Field(
        min_length=1, description="Keys of the objects, which become the columns."
    )

    def batches(self, needed: frozenset[str] | None) -> Iterator[pa.RecordBatch]:
        """Yield the objects, some thousand at a time, with the needed columns."""
        names = [each for each in self.columns if needed is None or each in needed]
        headers = bearer(read_secret(self.token, f"{self.block_slug}, token"))
        yield _batch([], names)  # a list without customers has its columns, too
        with Api("The CRM", self.base_url, headers=headers) as api, TemporaryFile() as body:
            api.download(self.path, "the list", body, {})
            body.seek(0)
            for lines in batched(enumerate(body, 1), ROWS_AT_ONCE):
                yield _batch(lines, names)


def _batch(lines: Iterable[tuple[int, bytes]], names: list[str]) -> pa.RecordBatch:
    rows = [_parse(number, line, names) for number, line in lines]
    columns = [pa.array([row[at] for row in rows], pa.string()) for at in range(len(names))]
    return pa.record_batch(columns, names)


def _parse(number: int, line: bytes, names: list[str]) -> list[str | None]:
    """Return a line's values. An error tells the line, and nothing that stands in it."""
    try:
        row = json.loads(line, parse_int=str, parse_float=str)  # digits stay as they are
        values = [row.get(name) for name in names]
    except (ValueError, AttributeError):
        raise SourceError(f"Line {number:,} of the list is no JSON object.") from None
    return [_text(number, name, value) for name, value in zip(names, values, strict=True)]


def _text(number: int, name: str, value: Any) -> str | None:
    if isinstance(value, bool):
        return "true" if value else "false"
    if value is None or isinstance(value, str):
        return value
    raise SourceError(f"Line {number:,} of the list: {name} is neither text nor a number.")

"""What becomes of a list: extracted by its block, judged by the rules, without Prefect."""

import re
from collections.abc import Generator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from datetime import UTC, datetime
from pathlib import Path
from tempfile import TemporaryDirectory
from unittest.mock import patch

import polars as pl
import pytest
from prefect.logging import disable_run_logger

from blocks import CrmSource, DataLake
from nudgescribe.contract import WorkspaceField
from nudgescribe.errors import NudgeflowError
from tasks.customers import validate
from tasks.customers.mapping import FieldMapping, FieldSource
from tasks.customers.staging import describe
from tasks.journal.refresh import Refresh

CASES = Path(__file__).parents[1] / "data/cases"
LONGEST = 1000
"""Characters of what a person is told."""
Rules = Sequence[str | WorkspaceField]
"""Fields of the workspace; a name is one of text."""


@dataclass(frozen=True)
class Judged:
    """The rows that were accepted, and of the others row, field and code."""

    accepted: pl.DataFrame
    errors: list[tuple[int, str, str]]
    rejected: int

    @property
    def rows(self) -> list[tuple[str | None, ...]]:
        return self.accepted.rows()

    def values(self, column: str) -> list[str | None]:
        return self.accepted[column].to_list()


def field(
    name: str, type_: str = "string", format_: str | None = None, unique: bool = False
) -> WorkspaceField:
    """A field of the workspace."""
    return WorkspaceField(
        field_id=name,
        workspace_id="w",
        field_name=name,
        display_name=name,
        field_type=type_,
        field_format=format_,
        unique=unique,
    )


def judged(
    crm: CrmSource, rules: Rules | None = None, fields: Sequence[str] = (), strict: bool = False
) -> Judged:
    """The list judged by `rules`, the first of which identifies a customer; by default its own
    columns. `fields` are those that options.fields name.
    """
    with TemporaryDirectory() as folder, _told():
        listed, lake = Path(folder, "list.parquet"), DataLake(root=f"{folder}/lake")
        crm.extract(listed, frozenset(fields) or None)
        names = rules or fields or list(pl.read_parquet_schema(listed))
        texts = [each if isinstance(each, WorkspaceField) else field(each) for each in names]
        first = texts[0].model_copy(update={"unique": True})
        staged = describe(listed, "staging/x/extracted.parquet")
        lake.files.put(listed, staged.path)
        refresh = Refresh(id="x", started=datetime.now(UTC), journal="journals/x")
        sources = {name: FieldSource() for name in fields}
        with patch.object(validate, "create_table_artifact"), disable_run_logger():
            mapping = FieldMapping(rules=[first, *texts[1:]], sources=sources)
            done = validate.validate_customers.fn(
                mapping, staged, lake, refresh, "c", strict=strict
            )
        errors = pl.DataFrame(schema=["row", "field", "code"])
        if done.quarantine:
            errors = pl.read_parquet(lake.files.fs_path(done.quarantine))
        accepted = pl.read_parquet(lake.files.fs_path(done.accepted.path))
        return Judged(accepted, errors.select("row", "field", "code").rows(), done.rejected)


def refused(crm: CrmSource, *what: str, **options: object) -> str:
    """Why a list is refused: in one short line that says `what`, each a pattern."""
    with pytest.raises(NudgeflowError) as caught:
        judged(crm, **options)  # pyright: ignore[reportArgumentType]
    return _says(caught.value, what)


def refused_or(crm: CrmSource, *what: str, **options: object) -> Judged | None:
    """What becomes of a list; None if it is refused, which says `what`."""
    try:
        return judged(crm, **options)  # pyright: ignore[reportArgumentType]
    except NudgeflowError as error:
        _says(error, what)
        return None


def _says(error: NudgeflowError, what: Sequence[str]) -> str:
    said = str(error)
    assert len(said) < LONGEST, f"{len(said):,} characters"
    assert "\n" not in said
    for each in what:
        assert re.search(each, said, re.IGNORECASE), f"{each!r} is not said: {said}"
    return said


@contextmanager
def _told() -> Generator[None]:
    """A panic of a library is no Exception: a flow run ends Crashed by it."""
    try:
        yield
    except Exception:
        raise
    except BaseException as error:
        raise AssertionError(f"{type(error).__name__}: {error}") from error

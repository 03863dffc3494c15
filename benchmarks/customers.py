"""A customer list read, validated and written as uploads: ours against a model for each row and
against pandera, on the same file.

python -m benchmarks.customers [ROWS [ROUNDS]]

Each way runs in a fresh process. Memory is what comes on top of the imports. Ours also stages the
list twice, as checksummed Parquet in the lake, which the others do not: a refresh can be killed
between any two of its steps.
"""

# pyright: reportUnknownMemberType=false, reportUnknownVariableType=false
# pyright: reportUnknownArgumentType=false, reportUnknownLambdaType=false
# pandera and pydantic's made models leave their types open.

import sys
from contextlib import suppress
from datetime import UTC, date, datetime
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Annotated, Any

import polars as pl

from benchmarks.measuring import Way, as_a_child, draw, in_turns, medians, read_numbers
from nudgescribe.contract import FieldType, WorkspaceField

ROUNDS = 3
ROWS_AT_ONCE = 50_000
DATES = {"born": "%d/%m/%Y", "since": "%Y-%m-%d", "seen": "%d.%m.%Y"}
FORMATS = {"born": "dd/MM/yyyy", "since": "yyyy-MM-dd", "seen": "dd.MM.yyyy", "balance": "EUR"}
TYPES: dict[str, FieldType] = {
    "customer_id": "string",
    "first_name": "string",
    "last_name": "string",
    "mail": "string",
    "city": "string",
    "plan": "string",
    **dict.fromkeys(DATES, "Date"),
    "balance": "currency",
    "visits": "number",
    "grade": "char",
}
NEEDED = ("customer_id", "first_name", "plan")
NUMBER = r"^[+-]?[0-9]+(\.[0-9]+)?([eE][+-]?[0-9]+)?$"
AMOUNT = r"^-?[0-9]+(\.[0-9]{1,2})?$"


def rules() -> list[WorkspaceField]:
    """Return the fields of the workspace."""
    return [
        WorkspaceField(
            field_id=name,
            workspace_id="",
            field_name=name,
            display_name=name,
            field_type=kind,
            field_format=FORMATS.get(name),
            required=name in NEEDED,
            unique=name == "customer_id",
        )
        for name, kind in TYPES.items()
    ]


def listed(rows: int) -> pl.DataFrame:
    """Return 12 columns of about 105 bytes in all; one row of 111 has an impossible date."""
    days = pl.date_range(date(1950, 1, 1), date(2018, 1, 1), eager=True)
    number = pl.int_range(rows, eager=True)
    day = days.gather(number % len(days))
    frame = pl.DataFrame(
        {
            "customer_id": number.cast(pl.String).str.zfill(8),
            "first_name": "Name " + (number % 977).cast(pl.String),
            "last_name": "van der Berg, " + (number % 8999).cast(pl.String),
            "mail": "customer" + number.cast(pl.String) + "@example.com",
            "city": "City of " + (number % 300).cast(pl.String),
            "plan": pl.Series(["basic", "plus", "family"]).gather(number % 3),
            **{name: day.dt.strftime(notation) for name, notation in DATES.items()},
            "balance": (number % 500_000 / 100).round(2).cast(pl.String),
            "visits": (number % 100).cast(pl.String),
            "grade": pl.Series(["A", "B", "C", "D"]).gather(number % 4),
        }
    )
    wrong = pl.when(number % 111 == 110).then(pl.lit("31/02/2020")).otherwise("born")
    return frame.with_columns(born=wrong)


def ours(file: Path) -> int:
    """Use the block, the task and the upload's CSV as a refresh does, with the lake on disk."""
    from prefect.logging import disable_run_logger

    from blocks import DataLake, FileCrm
    from blocks.iterators import prefetch
    from blocks.storage.parquet import read_batches
    from tasks.customers import validate
    from tasks.customers.mapping import FieldMapping
    from tasks.customers.staging import describe
    from tasks.customers.upload import ROWS_SENT, with_csv
    from tasks.journal.refresh import Refresh

    validate.create_table_artifact = lambda *_, **__: None  # there is no Prefect server
    refresh = Refresh(id="r", started=datetime.now(UTC), journal="journals/r")
    with TemporaryDirectory() as folder, disable_run_logger():
        lake = DataLake(root=folder)
        extracted = Path(folder) / "staging" / "extracted.parquet"
        extracted.parent.mkdir()
        FileCrm(path=str(file), format="csv").extract(extracted)
        staged = describe(extracted, "staging/extracted.parquet")
        mapping = FieldMapping(rules=rules(), sources={})
        validated = validate.validate_customers.fn(mapping, staged, lake, refresh, "x")
        accepted = Path(lake.files.fs_path(validated.accepted.path))
        for _ in prefetch(with_csv(read_batches(accepted, ROWS_SENT))):
            pass
        return validated.accepted.rows


def ours_unstaged(file: Path) -> int:
    """Use the same reader, rules and writer without the lake in between: what staging costs."""
    import pyarrow as pa

    from blocks import FileCrm
    from blocks.iterators import prefetch
    from blocks.storage.reader import to_polars
    from nudgescribe import fields, rfc4180
    from nudgescribe.identifiers import no_ids

    good, columns = 0, rules()
    for batch in prefetch(FileCrm(path=str(file), format="csv").batches(None)):
        frame = to_polars(pa.Table.from_batches([batch]))
        accepted = fields.validate(frame, columns, no_ids()).accepted
        rfc4180.write(accepted)
        good += accepted.height
    return good


def pydantic(file: Path) -> int:
    """Use pandas, and a pydantic model for each row."""
    import pandas as pd
    from pydantic import AfterValidator, BaseModel, StringConstraints, ValidationError, create_model

    def dated(notation: str) -> AfterValidator:
        def check(value: str) -> str:
            datetime.strptime(value, notation)
            return value

        return AfterValidator(check)

    rules_: dict[str, Any] = {
        **{name: StringConstraints(min_length=1) for name in NEEDED},
        **{name: dated(notation) for name, notation in DATES.items()},
        "balance": StringConstraints(pattern=AMOUNT),
        "visits": StringConstraints(pattern=NUMBER),
        "grade": StringConstraints(min_length=1, max_length=1),
    }
    types = {name: (Annotated[str, rules_.get(name)], ...) for name in TYPES}
    model: type[BaseModel] = create_model("Customer", **types)  # pyright: ignore[reportCallIssue, reportArgumentType]
    good = 0
    options: dict[str, Any] = {"dtype": str, "keep_default_na": False}
    for frame in pd.read_csv(file, chunksize=ROWS_AT_ONCE, **options):
        kept: list[dict[str, Any]] = []
        for row in frame.to_dict("records"):
            with suppress(ValidationError):
                kept.append(model.model_validate(row).model_dump())
        pd.DataFrame(kept, columns=list(TYPES)).to_csv(index=False)
        good += len(kept)
    return good


def pandera(file: Path) -> int:
    """Use polars, and a pandera schema; its list of failures says which rows to leave out."""
    import pandera.polars as pa
    from pandera.errors import SchemaErrors

    def dated(notation: str) -> pa.Check:
        def check(data: Any) -> pl.LazyFrame:
            day = pl.col(data.key).str.to_date(notation, strict=False)
            return data.lazyframe.select(day.is_not_null())

        return pa.Check(check)

    checks = {
        **{name: pa.Check.str_length(min_value=1) for name in NEEDED},
        **{name: dated(notation) for name, notation in DATES.items()},
        "balance": pa.Check.str_matches(AMOUNT),
        "visits": pa.Check.str_matches(NUMBER),
        "grade": pa.Check.str_length(1, 1),
    }
    schema = pa.DataFrameSchema({name: pa.Column(str, checks.get(name)) for name in TYPES})
    good = 0
    for frame in pl.scan_csv(file, infer_schema=False).collect_batches(chunk_size=ROWS_AT_ONCE):
        try:
            schema.validate(frame, lazy=True)
        except SchemaErrors as error:
            bad = error.failure_cases["index"].unique()
            frame = frame.with_row_index("\0row").filter(~pl.col("\0row").is_in(bad.implode()))
            frame = frame.drop("\0row")
        frame.write_csv()
        good += frame.height
    return good


WAYS: dict[str, Way] = {
    "ours": ours,
    "ours, unstaged": ours_unstaged,
    "pandera": pandera,
    "pydantic": pydantic,
}


def main(rows: int, rounds: int) -> None:
    """Measure the ways in turns; print a table of the medians."""
    with TemporaryDirectory() as folder:
        file = Path(folder) / "customers.csv"
        listed(rows).write_csv(file)
        listed(1000).write_csv(file.with_suffix(".few"))
        runs = in_turns("benchmarks.customers", WAYS, file, rounds)
    middle = {name: medians(each) for name, each in runs.items()}
    print(f"\n{rows:,} rows of {len(TYPES)} columns, medians of {rounds} interleaved rounds")
    print(f"{'':16}{'wall s':>8}{'CPU s':>8}{'rows/s':>12}{'RSS+ MiB':>10}{'speed':>8}{'CPU':>6}")
    other = middle["pandera"]
    for name, one in middle.items():
        line = f"{name:16}{one.wall:8.2f}{one.cpu:8.2f}{one.rows / one.wall:12,.0f}"
        line += f"{(one.peak - one.rss) / 1024:10,.0f}{other.wall / one.wall:8.2f}"
        print(f"{line}{other.cpu / one.cpu:6.2f}")
    title = f"{rows:,} customers of {len(TYPES)} columns: CSV in, judged, upload CSV out"
    draw("customers", title, {name: one.cpu for name, one in middle.items()}, "CPU s")


if __name__ == "__main__":
    if sys.argv[1:2] == ["--child"]:
        as_a_child(WAYS)
    else:
        main(*read_numbers(rows=1_000_000, rounds=ROUNDS))

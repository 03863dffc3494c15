"""The customer list, validated by the workspace's rules before anything is changed."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from pathlib import Path

from prefect import task
from prefect.artifacts import create_table_artifact
from prefect.logging import get_run_logger
from pydantic import AliasChoices, Field

from blocks import CrmSource, DataLake
from blocks.crm.list_file import ListFile
from blocks.storage.errors import translate_disk_full
from blocks.storage.history import write_changes
from blocks.storage.parquet import read_frames
from blocks.storage.scratch import scratch_folder
from nudgescribe import fields
from nudgescribe.bases import Frozen
from nudgescribe.errors import counted, translate_foreign_errors
from nudgescribe.lazy import pl
from tasks.customers.duplicates import DUPLICATE, Choice
from tasks.customers.guardrails import ListCounts
from tasks.customers.holdout import Holdout, describe_other_key, find_other_key
from tasks.customers.mapping import FieldMapping
from tasks.customers.split import ListRefused, SplitList, split_list
from tasks.customers.staging import RowsLost, Staged, count_rows, describe, local_copy
from tasks.customers.suppression import Suppression, read_suppressed
from tasks.journal.entries import Journal, Step
from tasks.journal.history import as_changes, changes_file
from tasks.journal.refresh import Refresh
from tasks.policies import RETRIED
from tasks.telemetry import measures
from tasks.ui.markdown import plain

PURPOSE = "the validation of a list"
"""What temporary files are for, if there is no room for them."""


class BrokenRule(Frozen):
    """The number of rows that one rule rejected, by field and code; a row may break several."""

    field: str
    code: str
    rows: int


class Validated(Frozen):
    """The outcome of a validation: `accepted` holds the accepted rows as text, `quarantine` is the
    path of the file that lists the rejected ones, `broken_rules` counts them by rule. `key` is the
    field that identifies customers. `suppression` tells whose accepted rows were left out, and
    `holdout` is the file of the identifiers of those who were held out; if another key has chosen
    those of the campaign's last run with a holdout, that is the run `other_holdout`. `erased` is
    the number of those who were left out because they have a tombstone.
    """

    accepted: Staged
    extracted: int
    rejected: int
    broken_rules: list[BrokenRule] = Field(
        default=[], validation_alias=AliasChoices("broken_rules", "refused")
    )
    quarantine: str | None
    duplicates: Choice = "refuse"
    key: str
    fingerprint: str
    suppression: Suppression | None = None
    holdout: Staged | None = None
    other_holdout: int | None = None
    erased: int = 0

    @property
    def suppressed(self) -> int:
        """Return the number of customers who must not be written to."""
        return self.suppression.customers if self.suppression else 0

    @property
    def held_out(self) -> int:
        """Return the number of customers whom the holdout leaves out."""
        return self.holdout.rows if self.holdout else 0

    def counts(self, before: int | None, new: int = 0, orphaned: int = 0) -> ListCounts:
        """Return the list in numbers, for the guardrails. Copies of rows that were taken, as the
        options say, are not counted as rejected.
        """
        copies = sum(rule.rows for rule in self.broken_rules if rule.code == DUPLICATE)
        return ListCounts(
            accepted=self.accepted.rows,
            rejected=self.rejected - copies,
            left_out=self.suppressed + self.erased + self.held_out,
            quarantine=self.quarantine,
            before=before,
            new_segments=new,
            orphaned_segments=orphaned,
        )


@task(**RETRIED)
def validate_customers(
    mapping: FieldMapping,
    staged: Staged,
    lake: DataLake,
    refresh: Refresh,
    partition: str,
    *,
    strict: bool = False,
    duplicates: Choice = "refuse",
    suppress: CrmSource | None = None,
    holdout: Holdout | None = None,
    rejected_key: str = "rejected",
) -> Validated:
    """Stage the rows that keep the workspace's rules, and list the others in the `partition` of the
    lake's quarantine; the table `rejected_key` in Prefect's UI counts them by rule. Customers whom
    the list `suppress` names, who were erased, or whom the holdout chooses, are left out. A list is
    validated once per refresh: a retry returns the same outcome.

    Raises MappingRefused; ListRefused for wrong columns, for repeated identifiers unless one row of
    each is taken, and, if `strict`, for the first rejected row; SuppressionUnreadable,
    SecretUnusable.
    """
    quarantine = f"quarantine/{partition}/{refresh.id}.parquet"

    def validate() -> Validated:
        with scratch_folder(PURPOSE) as folder:
            suppressed = read_suppressed(suppress, mapping.key_column, folder) if suppress else None
            split = _split(mapping, staged, lake, folder, strict, duplicates, suppressed, holdout)
            if split.rejected:
                lake.files.put(split.errors, quarantine, private=True)
            _record(lake, refresh, split)
            broken_rules = _report_errors(split.errors, rejected_key) if split.rejected else []
            if split.repeated and duplicates == "refuse":
                raise ListRefused(
                    f"{counted(split.repeated, 'customer identifier', 'occurs')} more than once; "
                    f"see {quarantine} in the lake. With options.duplicates one row of each is "
                    "taken."
                )
            accepted, held_out = _stage(lake, split, staged, refresh.staging, holdout is not None)
            suppressed_rows = count_rows(split.suppressed)
            other = holdout and find_other_key(lake.files, partition, split.holdout_key)
            if notice := describe_other_key(other):
                get_run_logger().warning(notice)
        return Validated(
            accepted=accepted,
            extracted=staged.rows,
            rejected=split.rejected,
            broken_rules=broken_rules,
            quarantine=quarantine if split.rejected else None,
            duplicates=duplicates,
            key=fields.key_of(mapping.rules),
            fingerprint=split.fingerprint,
            suppression=suppress and Suppression.of(suppress, mapping.key_column, suppressed_rows),
            holdout=held_out,
            other_holdout=other,
            erased=split.erased,
        )

    return Journal(lake.files, refresh.journal).step(Step.VALIDATED, Validated, validate)


def _split(
    mapping: FieldMapping,
    staged: Staged,
    lake: DataLake,
    folder: Path,
    strict: bool,
    duplicates: Choice,
    suppressed: Path | None,
    holdout: Holdout | None,
) -> SplitList:
    """Split the list into files in a folder. Raises MappingRefused, ListRefused."""
    tombstones = lake.tombstones()
    with (
        local_copy(lake, staged) as source,
        translate_foreign_errors(staged.path, ListRefused),
        translate_disk_full(PURPOSE, str(folder)),
    ):
        return split_list(
            ListFile(source),
            mapping,
            folder,
            strict=strict,
            duplicates=duplicates,
            show=lake.show_identifiers,
            suppressed=suppressed,
            is_erased=tombstones.find if tombstones else None,
            holdout=holdout,
        )


def _record(lake: DataLake, refresh: Refresh, split: SplitList) -> None:
    """Write to the lake's history who was rejected, suppressed and held out."""
    path = changes_file(refresh, "list")
    left_out = {"suppressed": split.suppressed, "held_out": split.held_out}
    if split.rejected or any(map(count_rows, left_out.values())):
        write_changes(lake.files, path, refresh.id, _changes(lake, split, left_out))
    else:
        lake.files.remove(path)  # of an earlier try, which had another list


def _changes(
    lake: DataLake, split: SplitList, left_out: Mapping[str, Path]
) -> Iterator[pl.DataFrame]:
    for frame in read_frames(split.errors):  # whose identifiers are shown already
        shown = pl.col("identifier").alias("customer_id"), pl.lit("rejected").alias("change")
        yield frame.select(*shown, "field", "code")
    for change, file in left_out.items():
        yield from as_changes(lake, read_frames(file), change)


def _stage(
    lake: DataLake, split: SplitList, staged: Staged, folder: str, with_holdout: bool
) -> tuple[Staged, Staged | None]:
    """Put the accepted rows, and those held out, into a folder of the lake. Raises RowsLost."""
    accepted = describe(split.accepted, f"{folder}/accepted.parquet")
    held_out = describe(split.held_out, f"{folder}/held-out.parquet") if with_holdout else None
    counts = {
        "rejected": split.rejected,
        "suppressed": count_rows(split.suppressed),
        "erased": split.erased,
        "held out": held_out.rows if held_out else 0,
    }
    others = ", ".join(f"{outcome} {rows:,}" for outcome, rows in counts.items())
    if accepted.rows + sum(counts.values()) != staged.rows:
        raise RowsLost(
            f"Of {staged.rows:,} rows extracted, {accepted.rows:,} were accepted; {others}."
        )
    lake.files.put(split.accepted, accepted.path, private=True)
    if held_out:
        lake.files.put(split.held_out, held_out.path, private=True)
    measures.count_rows({"accepted": accepted.rows, **counts})
    get_run_logger().info("Accepted %s rows, %s", f"{accepted.rows:,}", others)
    return accepted, held_out


def _report_errors(errors: Path, key: str) -> list[BrokenRule]:
    counts = (
        pl.scan_parquet(errors)
        .group_by("field", "code", "reason")
        .agg(pl.len().alias("rows"), pl.col("row").min().alias("first row"))
        .sort("field", "code")
        .collect()
    )
    rows = [{**row, "field": plain(row["field"])} for row in counts.to_dicts()]
    create_table_artifact(table=rows, key=key, description="Rejected rows by rule")
    return [BrokenRule(field=row[0], code=row[1], rows=row[3]) for row in counts.iter_rows()]

"""The customers to erase: read once from a list, and marked by tombstones in the lake."""

from __future__ import annotations

from collections.abc import Callable, Generator
from contextlib import contextmanager
from typing import TypeAlias

from prefect import task
from prefect.logging import get_run_logger

from blocks import CrmSource, DataLake
from blocks.extras import require
from blocks.storage.manifest import DELTA_LOG
from blocks.storage.parquet import read_frames
from blocks.storage.reader import list_manifests
from blocks.storage.scratch import scratch_folder
from blocks.storage.tombstones import ErasureKeyWrong, write_tombstones
from nudgescribe.bases import Frozen
from nudgescribe.errors import NudgeflowError
from nudgescribe.lazy import pl
from tasks.customers.left_out import ID
from tasks.customers.staging import Staged, StagingLost, describe, local_copy
from tasks.customers.suppression import list_identifiers
from tasks.journal.entries import Journal, Step
from tasks.journal.refresh import Refresh
from tasks.policies import RETRIED

Find: TypeAlias = "Callable[[pl.Series], pl.Series]"
"""Tells of each value whether it is the identifier of a customer to erase."""


class ErasureEmpty(NudgeflowError):
    """The list of customers to erase has nobody."""

    advice = "Nothing was changed. Look at the list and at its column, then start again."


class ErasureListLost(NudgeflowError):
    """The list that an erasure was begun with is no longer in the lake."""

    advice = "Start a new erasure with the same list; what was erased stays so."


class ToErase(Frozen):
    """The customers to erase, each once: a staged file of their identifiers."""

    customers: Staged

    @contextmanager
    def ids(self, lake: DataLake) -> Generator[pl.Series]:
        """Yield the identifiers. Raises ErasureListLost, StagingChanged."""
        try:
            with local_copy(lake, self.customers) as file:
                yield pl.concat(frame[ID] for frame in read_frames(file))
        except StagingLost as error:
            raise ErasureListLost(error.problem) from None


def finder(ids: pl.Series) -> Find:
    """Return what tells whether values are among these identifiers."""
    known = frozenset(ids)  # polars' `is_in` would hash a long list anew for each batch

    def find(values: pl.Series) -> pl.Series:
        return pl.Series((value in known for value in values.cast(pl.String)), dtype=pl.Boolean)

    return find


@task(**RETRIED)
def read_list(crm: CrmSource, column: str, lake: DataLake, run: Refresh) -> ToErase:
    """Stage the identifiers to erase, once per flow run; a retry goes on with the same ones.

    All that can be known to hinder the erasure does so here: raises ErasureKeyWrong,
    SecretUnusable, ExtraMissing, ManifestDamaged, SourceError, ErasureEmpty.
    """
    if lake.read_erasure_key() is None:
        raise ErasureKeyWrong("The lake block has no erasure_key.")
    lake.tombstones()
    if lake.files.exists(DELTA_LOG):
        require("delta", f"To erase customers from the Delta table in {lake.files.root}")
    for problem in list_manifests(lake.files)[1]:
        raise problem

    def read() -> ToErase:
        with scratch_folder("the list of customers to erase") as folder:
            file = list_identifiers(crm.resolve(), column, folder)
            listed = pl.read_parquet(file).unique(maintain_order=True)
            if not listed.height:
                raise ErasureEmpty(f"{crm.block_slug} has no identifiers.")
            listed.write_parquet(file)
            staged = describe(file, f"{run.staging}/to-erase.parquet")
            lake.files.put(file, staged.path, private=True)
        get_run_logger().info("%s customers are to be erased", f"{staged.rows:,}")
        return ToErase(customers=staged)

    return Journal(lake.files, run.journal).step(Step.FOUND, ToErase, read)


@task(**RETRIED)
def mark_erased(to_erase: ToErase, lake: DataLake, run: Refresh) -> None:
    """Write the tombstones: from now on no export brings these customers back.

    Raises ErasureKeyWrong.
    """
    key = lake.read_erasure_key()
    if key is None:
        raise ErasureKeyWrong("The lake block has no erasure_key.")
    with to_erase.ids(lake) as ids:
        write_tombstones(lake.files, key, run.id, [ids])

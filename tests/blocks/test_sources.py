"""Which classes of other packages can be sources of customer lists."""

from collections.abc import Iterator

import pytest
from prefect.blocks.core import Block
from prefect.utilities.dispatch import get_registry_for_type

from blocks import CrmSource, FileCrm, SqlCrm, sources
from blocks.packages import Unusable

check = sources._check  # pyright: ignore[reportPrivateUsage]


@pytest.fixture(autouse=True)
def registry(monkeypatch: pytest.MonkeyPatch) -> Iterator[None]:
    """Forgets the classes that a test defines."""
    types = get_registry_for_type(Block)
    assert types
    before = dict(types)
    monkeypatch.setattr(sources, "_taken", dict(sources._taken))  # pyright: ignore[reportPrivateUsage]
    yield
    types.clear()
    types.update(before)


def test_source_of_a_type_of_its_own_is_taken() -> None:
    class OtherCrm(FileCrm):
        _block_type_name = "Other CRM"

    assert check(OtherCrm) is OtherCrm
    assert check(OtherCrm) is OtherCrm  # named by two entry points


@pytest.mark.filterwarnings("ignore:.*matches existing registered type:UserWarning")
def test_what_is_no_source_is_refused() -> None:
    class NoBlock:
        """A class, and no source."""

    class Unfinished(CrmSource):
        _block_type_name = "Unfinished CRM"

    class Nameless(FileCrm):
        _block_type_name = "!"

    class Ours(FileCrm):
        _block_type_name = SqlCrm.get_block_type_name()

    class Prefects(FileCrm):
        _block_type_name = "Secret"

    for added, why in (
        ("text", "no class that derives from blocks.CrmSource"),
        (NoBlock, "no class that derives from blocks.CrmSource"),
        (Unfinished, "does not define batches"),
        (Nameless, "neither a letter nor a digit"),
        (Ours, "another block has its type's name, sql-crm"),
        (Prefects, "another block has its type's name, secret"),
    ):
        with pytest.raises(Unusable, match=why):
            check(added)

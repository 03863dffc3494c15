"""Pages on their way to the lake: how many at once, how much room they take, what is left of them
when an error or `kill -9` comes in between.
"""

import os
import runpy
import signal
import sys
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from threading import Barrier, Event, Lock, Semaphore
from typing import Any, BinaryIO

import pytest
from prefect.logging import disable_run_logger
from pyarrow import parquet

from blocks import DataLake
from blocks.storage.files import DRAFT
from blocks.storage.reader import find_newest
from nudgescribe.errors import NotFound
from tasks.export import download
from tasks.export import run as tasks
from tasks.export.download import Slots, fetch_pages, slots_of
from tasks.ui.progress import Progress, ProgressCounter
from tests.support.exports import page
from tests.support.forks import run_in_fork
from tests.tasks.export.conftest import FOLDER, export_ref

PAGES = 6


def ids_of(number: int) -> list[str]:
    return [f"{number:04}{row}" for row in range(2)]


class Pages:
    """A client that has every page, each a few bytes, and knows what was asked of it."""

    def __init__(self, download: Callable[[int], object] = lambda number: None) -> None:
        self.asked: list[int] = []
        self.files: list[BinaryIO] = []
        self.most = 0
        self._download = download
        self._running = 0
        self._lock = Lock()

    def download_page(
        self, campaign_id: str, number: int, target: BinaryIO, run_number: int | None
    ) -> int:
        with self._lock:
            self.asked.append(number)
            self.files.append(target)
            self._running += 1
            self.most = max(self.most, self._running)
        try:
            self._download(number)
            return target.write(page(ids_of(number)))
        finally:
            with self._lock:
                self._running -= 1


def fetch(lake: DataLake, client: Any, numbers: range, slots: Slots) -> Progress:
    counter = ProgressCounter()
    fetch_pages(client, lake, export_ref(numbers.stop), numbers, slots, counter)
    return counter.progress


def nothing_lies_on_disk(slots: Slots) -> bool:
    """Whether somebody who is not next in turn finds room at once."""
    turns: list[bool] = []
    with slots.downloading(0, lambda: not turns.append(True)):
        return not turns


def test_downloads_keep_to_their_limit(lake: DataLake) -> None:
    allowed, chunks = 3, [range(first, first + 30) for first in range(0, 120, 30)]
    # As many as are allowed meet, each time.
    together = Barrier(allowed, timeout=60)
    client, slots = Pages(lambda number: together.wait()), Slots(allowed)
    with ThreadPoolExecutor(len(chunks)) as pool:
        done = list(pool.map(lambda chunk: fetch(lake, client, chunk, slots), chunks))
    assert client.most == allowed
    assert sorted(client.asked) == list(range(120))
    assert [(each.pages, each.rows) for each in done] == [(30, 60)] * 4


@pytest.mark.timeout(20)
def test_downloads_fetch_next_page_only_without_space(lake: DataLake) -> None:
    client, slots = Pages(), Slots(4, spool_bytes=1)
    slots.spool(1)  # other chunks' pages
    done = fetch(lake, client, range(8), slots)
    assert done.pages == 8
    assert (client.asked, client.most) == (list(range(8)), 1)
    assert not nothing_lies_on_disk(slots)
    slots.spool(-1)
    assert nothing_lies_on_disk(slots)


@pytest.mark.timeout(20)
def test_chunks_complete_without_any_space(lake: DataLake) -> None:
    chunks = [range(first, first + 25) for first in range(0, 100, 25)]
    client, slots = Pages(), Slots(2, spool_bytes=1)
    with ThreadPoolExecutor(len(chunks)) as pool:
        done = list(pool.map(lambda chunk: fetch(lake, client, chunk, slots), chunks))
    assert [each.pages for each in done] == [25] * 4
    assert client.most <= 2
    assert all(file.closed for file in client.files)
    assert nothing_lies_on_disk(slots)


@pytest.mark.timeout(20)
def test_waiting_downloads_end_after_error(lake: DataLake) -> None:
    def download(number: int) -> None:
        if number == 2:
            raise NotFound("Page 2 is gone.")

    client, slots = Pages(download), Slots(4, spool_bytes=1)
    slots.spool(1)
    with pytest.raises(NotFound, match="Page 2 is gone"):
        fetch(lake, client, range(1000), slots)
    assert client.asked == [0, 1, 2]
    assert all(file.closed for file in client.files)
    assert lake.files.list_names(FOLDER) == []
    slots.spool(-1)
    assert nothing_lies_on_disk(slots)


@pytest.mark.timeout(20)
@pytest.mark.parametrize(
    ("seconds", "together"), [(0.0, 2), (10.0, 8)], ids=["fast network", "slow network"]
)
def test_downloads_give_way_to_converters_only_where_network_is_fast(
    monkeypatch: pytest.MonkeyPatch, seconds: float, together: int
) -> None:
    """While a page waits that takes a second to convert, in which many could be downloaded."""
    now = 0.0
    monkeypatch.setattr(download, "monotonic", lambda: now)
    slots = Slots(8, converters=2)

    def convert() -> int:
        nonlocal now
        now += 1
        return 1

    with slots.downloading(0, lambda: True):
        now += seconds + 0.1
    slots.spool(10**6)
    slots.convert(10**6, convert)
    entered, leave = Semaphore(0), Event()

    def hold() -> None:
        with slots.downloading(1, lambda: False):
            entered.release()
            leave.wait()

    with ThreadPoolExecutor(8) as threads:
        for _ in range(8):
            threads.submit(hold)
        for _ in range(together):
            assert entered.acquire(timeout=10)
        if together < 8:
            assert slots.running == together
            slots.spool(-(10**6))  # nothing waits for the converters any more
            for _ in range(8 - together):
                assert entered.acquire(timeout=10)
        leave.set()


@pytest.mark.timeout(20)
def test_chunks_take_turns_in_their_downloads() -> None:
    slots, begun = Slots(1, converters=1), list[tuple[str, int]]()

    def download(chunk: str, turn: int) -> None:
        with slots.downloading(turn, lambda: False):
            begun.append((chunk, turn))

    with ThreadPoolExecutor(6) as threads, slots.downloading(0, lambda: True):
        for chunk in ("a", "b"):
            for turn in range(3):
                threads.submit(download, chunk, turn)
        while slots.waiting < 6:
            pass
    assert [turn for _, turn in begun] == [0, 0, 1, 1, 2, 2]


def test_chunks_that_begin_together_share_their_slots() -> None:
    together = Barrier(8, timeout=60)

    def begin(downloads: int) -> Slots:
        together.wait()
        return slots_of(downloads)

    interval = sys.getswitchinterval()
    sys.setswitchinterval(1e-6)
    try:
        with ThreadPoolExecutor(8) as threads:
            for downloads in range(101, 201):
                assert len({*threads.map(begin, [downloads] * 8)}) == 1
    finally:
        sys.setswitchinterval(interval)


@pytest.mark.parametrize("bad", range(4))
def test_downloaded_files_are_closed_after_error(lake: DataLake, bad: int) -> None:
    together = Barrier(4, timeout=60)

    def download(number: int) -> None:
        together.wait()
        if number == bad:
            raise NotFound("It is gone.")

    client, slots = Pages(download), Slots(4)
    with pytest.raises(NotFound):
        fetch(lake, client, range(4), slots)
    assert len(client.files) == 4
    assert all(file.closed for file in client.files)
    assert nothing_lies_on_disk(slots)
    assert not list(Path(lake.root).rglob(f"{DRAFT}*"))


# ---- killed at any moment ---------------------------------------------------------------------


def write(lake: DataLake) -> None:
    """What the tasks of an export do to a lake, in one process."""
    ref, client = export_ref(PAGES, 2 * PAGES), Pages()
    for chunk in (range(PAGES // 2), range(PAGES // 2, PAGES)):
        fetch_pages(client, lake, ref, chunk, Slots(1, 1), ProgressCounter())
    with disable_run_logger():
        assert tasks.check_export.fn(ref, lake) is None
        tasks.commit_run.fn(ref, lake)


def write_and_die(root: str, moment: int) -> None:
    """Writes a run, but is killed before its n-th operation on a file that is being written."""
    left = moment

    def count(event: str, given: tuple[Any, ...]) -> None:
        nonlocal left
        path = str(given[0]) if given else ""
        if event == "open" and path.startswith(root) and given[2] & os.O_ACCMODE != os.O_RDONLY:
            assert DRAFT in path, "what others see is written in place"
        if event in OPERATIONS and DRAFT in path:
            left -= 1
            if left == 0:
                os.kill(os.getpid(), signal.SIGKILL)

    sys.addaudithook(count)
    write(DataLake(root=root))


OPERATIONS = {"open", "os.rename", "os.link", "os.remove", "os.chmod"}
"""As Python's audit names them. What Arrow writes to a part falls between two of them."""


def run_and_die(root: Path, moment: int) -> bool:
    """Writes a run in a process of its own; whether it was killed before it was done."""
    code = run_in_fork(write_and_die, str(root), moment)
    assert code in (0, -signal.SIGKILL)
    return code != 0


def is_there(lake: DataLake) -> bool:
    """Whether a reader sees the run; all of it, and no torn file in either case."""
    for name in lake.files.list_names(FOLDER):
        if name.startswith("part-"):
            assert parquet.read_table(f"{lake.root}/{FOLDER}/{name}").num_rows == PAGES
    if lake.manifest("C", 2) is None:
        assert find_newest(lake.files, "C") is None
        return False
    ids = [one for number in range(PAGES) for one in ids_of(number)]
    assert lake.read("C", 2, "polars").rows() == [(one, f"to {one}") for one in ids]
    return True


def test_fetch_completes_when_killed_at_any_moment(tmp_path: Path) -> None:
    seen: list[bool] = []
    while run_and_die(root := tmp_path / str(len(seen)), len(seen) + 1):
        lake = DataLake(root=str(root))
        seen.append(is_there(lake))
        write(lake)
        assert is_there(lake)
        assert lake.read("C").shape == lake.read("C", 2).shape
        assert len(lake.files.list_names(FOLDER)) == 3
    # Once it is there it stays there.
    assert seen == sorted(seen)
    assert set(seen) == {False, True}


def test_converters_keep_to_cores_of_process() -> None:
    cores = os.sched_getaffinity(0)
    os.sched_setaffinity(0, {min(cores)})
    try:
        assert runpy.run_path(str(download.__file__))["CONVERTERS"] == 1
    finally:
        os.sched_setaffinity(0, cores)

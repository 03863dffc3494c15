"""Pages fetched into the lake: many downloads wait, as many converters work as there are cores.

A download goes to a nameless file on this machine's disk, so memory does not grow with the number
of connections, and a process that is killed leaves none behind. A chunk's pages are converted in
their order, into parts that hold several of them.
"""

import os
from bisect import insort
from collections import deque
from collections.abc import Callable, Generator, Iterable, Iterator, Sequence
from concurrent.futures import CancelledError, ThreadPoolExecutor
from contextlib import contextmanager
from dataclasses import dataclass, field
from functools import cache
from tempfile import TemporaryFile, gettempdir
from threading import Event, Lock
from typing import BinaryIO, Self

from loky import cpu_count
from pydantic import BaseModel, ConfigDict

from blocks import DataLake
from blocks.storage.errors import translate_disk_full
from blocks.storage.manifest import Batch
from blocks.storage.part_writer import PartWriter
from nudgescribe import rfc4180
from nudgescribe.client import NudgescribeClient
from nudgescribe.contract import MESSAGE_COLUMNS
from nudgescribe.errors import ContractMismatch, NudgeflowError
from nudgescribe.rfc4180 import Block, MalformedCsv
from tasks.export.ledger import Ledger
from tasks.ui.progress import Meter

CONVERTERS = cpu_count()
CHUNKS_AT_ONCE = 4 * CONVERTERS
"""While some are converted, others wait for their downloads; each holds a part open in memory."""
SPOOL_BYTES = 1024 * 1024 * 1024
"""No further download begins while this much waits on disk to be converted."""
READ_AT_ONCE = 32 * 1024 * 1024
"""Bytes; a longer page is read in blocks, and twice: first to see that it is whole."""
TRIES = 4


class PageBroken(NudgeflowError):
    advice = "Retry this flow run; if it stays, have the campaign published again."


class ExportRef(BaseModel):
    """An export to be fetched: the `pages` of a run, by `writer`, who notes in `staging` what is
    done. `rows` is None where nothing says how many there are.
    """

    model_config = ConfigDict(frozen=True)

    campaign_id: str
    run_number: int
    customer_group_id: str | None
    job_uid: str | None
    past: bool
    pages: int
    rows: int | None
    writer: str
    staging: str
    generation: int
    done: bool

    @property
    def name(self) -> str:
        return f"run {self.run_number} of campaign {self.campaign_id}"


@dataclass
class _Waiting:
    """A download that has not begun. It is `urgent` when its chunk can do nothing without it."""

    page: int
    urgent: Callable[[], bool]
    begin: Event = field(default_factory=Event)


class Slots:
    """What all chunks in this process share: connections, converters, room on disk.

    Downloads begin in the order of their pages, so that the first chunks are soon complete and can
    be converted while the next ones arrive. Without room only an urgent one begins: what waits on
    disk can always be worked off.
    """

    def __init__(
        self, downloads: int, converters: int = CONVERTERS, spool_bytes: int = SPOOL_BYTES
    ) -> None:
        self.downloads = downloads
        self.converters = ThreadPoolExecutor(converters)
        self._spool_bytes = spool_bytes
        self._lock = Lock()
        self._waiting: list[_Waiting] = []
        self._running = 0
        self._spooled = 0

    @contextmanager
    def downloading(self, page: int, urgent: Callable[[], bool]) -> Generator[None]:
        """Waits for a connection and for room."""
        waiting = _Waiting(page, urgent)
        with self._lock:
            insort(self._waiting, waiting, key=lambda one: one.page)
        self.wake()
        waiting.begin.wait()
        try:
            yield
        finally:
            with self._lock:
                self._running -= 1
            self.wake()

    def spool(self, size: int) -> None:
        """Counts bytes that lie on disk now, or, below zero, no longer."""
        with self._lock:
            self._spooled += size
        self.wake()

    def wake(self) -> None:
        """Lets those begin that can."""
        with self._lock:
            while self._running < self.downloads:
                room = self._spooled < self._spool_bytes
                ready = (one for one in self._waiting if room or one.urgent())
                if (first := next(ready, None)) is None:
                    return
                self._waiting.remove(first)
                self._running += 1
                first.begin.set()


@cache
def slots_of(downloads: int) -> Slots:
    """This process's slots for so many connections."""
    return Slots(downloads)


def fetch_pages(
    client: NudgescribeClient,
    lake: DataLake,
    export: ExportRef,
    pages: Sequence[int],
    slots: Slots,
    meter: Meter,
) -> None:
    """Brings pages into the lake as parts, each noted in the ledger when it is there; what the
    ledger has already is left alone. Raises PageBroken for a page that stays unreadable.
    """
    ledger = Ledger(lake.files, export.staging)
    for batch in ledger.batches(pages):
        for page in batch.pages:
            if page.page in pages:
                meter.add(page.rows, page.bytes, earlier=True)
    there = ledger.pages()
    missing = [number for number in pages if number not in there]
    with (
        lake.part_writer(export.campaign_id, export.run_number, export.writer) as writer,
        _Downloads(client, export, missing, slots) as downloads,
    ):
        last = -1
        for number, file in downloads:
            if number != last + 1:
                _note(ledger, writer.finish())
            last = number
            # In threads of their own: an allocator keeps memory for each thread that has used it.
            converted = slots.converters.submit(_convert, number, file, downloads, writer)
            rows = converted.result()
            meter.add(rows, downloads.done_with(file))
            if writer.is_full:
                _note(ledger, writer.finish())
        _note(ledger, writer.finish())


def _note(ledger: Ledger, batch: Batch | None) -> None:
    if batch:
        ledger.add(batch)


def _convert(number: int, file: BinaryIO, downloads: "_Downloads", writer: PartWriter) -> int:
    tries = 0
    while True:
        try:
            return writer.write(number, file.seek(0, os.SEEK_END), _proved(file, writer))
        except (MalformedCsv, ContractMismatch) as error:
            tries += 1
            if tries == TRIES:
                what = f"Page {number} of {downloads.export.name}"
                raise PageBroken(f"{what} is broken: {error.problem}") from None
        downloads.fetch(number, file)


def _proved(file: BinaryIO, writer: PartWriter) -> Iterable[Block]:
    """A page's rows, all of them read once before the first is passed on."""
    if file.seek(0, os.SEEK_END) <= READ_AT_ONCE:
        return list(_checked(rfc4180.mapped(file), writer))
    for _ in _blocks(file, writer):
        pass
    return _blocks(file, writer)


def _blocks(file: BinaryIO, writer: PartWriter) -> Iterator[Block]:
    file.seek(0)
    return _checked(rfc4180.blocks(file), writer)


def _checked(blocks: Iterator[Block], writer: PartWriter) -> Iterator[Block]:
    for block in blocks:
        if tuple(block.table.schema.names) != MESSAGE_COLUMNS:
            # Without a header row they are a customer's values: they are not told.
            raise ContractMismatch(f"its columns are not {' and '.join(MESSAGE_COLUMNS)}.")
        yield block if writer.writes_raw else Block(b"", block.table)


class _Downloads:
    """Pages in their order, each a file on this machine, while the next ones are on their way."""

    def __init__(
        self, client: NudgescribeClient, export: ExportRef, pages: list[int], slots: Slots
    ) -> None:
        self.export = export
        self._client = client
        self._slots = slots
        self._sizes: dict[BinaryIO, int] = {}
        self._turn = 0
        self._stopped = False
        self._pool = ThreadPoolExecutor(max(1, min(slots.downloads, len(pages))))
        self._pages = deque(
            (number, self._pool.submit(self._download, turn, number))
            for turn, number in enumerate(pages)
        )

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *error: object) -> None:
        self._stopped = True
        self._pool.shutdown(wait=False, cancel_futures=True)
        self._slots.wake()
        self._pool.shutdown()
        for file in list(self._sizes):
            self.done_with(file)

    def __iter__(self) -> Iterator[tuple[int, BinaryIO]]:
        while self._pages:
            number, future = self._pages.popleft()
            yield number, future.result()
            self._turn += 1
            self._slots.wake()

    def fetch(self, number: int, file: BinaryIO) -> None:
        """Downloads a page into a file, in place of what it holds."""
        export = self.export
        past = export.run_number if export.past else None
        with translate_disk_full(f"page {number} of {export.name}", gettempdir()):
            size = self._client.download_page(export.campaign_id, number, file, past)
        self._slots.spool(size - self._sizes[file])
        self._sizes[file] = size

    def done_with(self, file: BinaryIO) -> int:
        """Removes a page from this machine and returns its size in bytes."""
        file.close()
        size = self._sizes.pop(file)
        self._slots.spool(-size)
        return size

    def _download(self, turn: int, number: int) -> BinaryIO:
        with self._slots.downloading(number, lambda: self._stopped or turn == self._turn):
            if self._stopped:
                raise CancelledError
            file: BinaryIO = TemporaryFile()  # noqa: SIM115 - lives until its page is converted
            self._sizes[file] = 0
            self.fetch(number, file)
            return file

"""Pages downloaded and converted into the lake, by many connections and a converter per core.

A download goes to a nameless file on this machine's disk: memory does not grow with the number of
connections, and a killed process leaves no file behind. A chunk's pages are converted in their
order, several into one part.
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
from typing import BinaryIO

from loky import cpu_count

from blocks import DataLake
from blocks.storage.errors import translate_disk_full
from blocks.storage.part_writer import PartWriter
from nudgescribe import rfc4180
from nudgescribe.bases import Closing, Frozen
from nudgescribe.client import NudgescribeClient
from nudgescribe.contract import MESSAGE_COLUMNS
from nudgescribe.errors import ContractMismatch, NudgeflowError
from nudgescribe.rfc4180 import CsvBlock, MalformedCsv
from tasks.export.ledger import Ledger
from tasks.ui.progress import ProgressCounter

CONVERTERS = cpu_count()
CHUNKS_AT_ONCE = 4 * CONVERTERS
"""More than converters, for some wait for their downloads; each holds a part open in memory."""
SPOOL_BYTES = 1024 * 1024 * 1024
"""No further download begins while this much waits on disk for its conversion."""
READ_AT_ONCE = 32 * 1024 * 1024
"""Bytes; a longer page is read in blocks, and twice: first to check that it is whole."""
TRIES = 4


class PageBroken(NudgeflowError):
    """A page cannot be read, however often it is fetched."""

    advice = "Retry this flow run; if it stays, have the campaign published again."


class ExportRef(Frozen):
    """An export to fetch: the number of `pages` of a run, the `writer` that its parts are named
    after, the `staging` folder of its ledger. `rows` is None if their number is unknown; `done`
    tells that the run is in the lake already.
    """

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
        """Return what errors and logs call it."""
        return f"run {self.run_number} of campaign {self.campaign_id}"


@dataclass
class _Waiting:
    """A download that has not begun; it is `urgent` while its chunk waits for just this page."""

    page: int
    urgent: Callable[[], bool]
    begin: Event = field(default_factory=Event)


class Slots:
    """The connections, converters and disk space that all chunks in this process share.

    Downloads begin in the order of their pages, so that the first chunks are converted while the
    next ones arrive. Without disk space only urgent downloads begin: so what is on disk can always
    be converted, and frees its space.
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
        """Wait for a connection and for disk space, and hold the connection."""
        waiting = _Waiting(page, urgent)
        with self._lock:
            insort(self._waiting, waiting, key=lambda entry: entry.page)
        self.wake()
        waiting.begin.wait()
        try:
            yield
        finally:
            with self._lock:
                self._running -= 1
            self.wake()

    def spool(self, size: int) -> None:
        """Count bytes written to disk; a negative size counts bytes removed."""
        with self._lock:
            self._spooled += size
        self.wake()

    def wake(self) -> None:
        """Begin the waiting downloads for which there are a connection and disk space."""
        with self._lock:
            while self._running < self.downloads:
                space = self._spooled < self._spool_bytes
                ready = (entry for entry in self._waiting if space or entry.urgent())
                if (first := next(ready, None)) is None:
                    return
                self._waiting.remove(first)
                self._running += 1
                first.begin.set()


@cache
def slots_of(downloads: int) -> Slots:
    """Return this process's slots for this number of connections."""
    return Slots(downloads)


def fetch_pages(
    client: NudgescribeClient,
    lake: DataLake,
    export: ExportRef,
    pages: Sequence[int],
    slots: Slots,
    counter: ProgressCounter,
) -> None:
    """Write pages to the lake as parts, and enter each batch in the ledger once it is there. Pages
    in the ledger are not fetched again. Raises PageBroken for a page that stays unreadable.
    """
    ledger = Ledger(lake.files, export.staging)
    for batch in ledger.batches(pages):
        for page in batch.pages:
            if page.page in pages:
                counter.add(page.rows, page.bytes, earlier=True)
    fetched = ledger.pages()
    missing = [number for number in pages if number not in fetched]
    with (
        lake.part_writer(export.campaign_id, export.run_number, export.writer) as writer,
        _Downloads(client, export, missing, slots) as downloads,
    ):
        last = -1
        for number, file in downloads:
            if number != last + 1:
                _finish_batch(writer, ledger)
            last = number
            # In threads of their own: an allocator keeps memory for each thread that has used it.
            converted = slots.converters.submit(_convert, number, file, downloads, writer)
            rows = converted.result()
            counter.add(rows, downloads.discard(file))
            if writer.is_full:
                _finish_batch(writer, ledger)
        _finish_batch(writer, ledger)


def _finish_batch(writer: PartWriter, ledger: Ledger) -> None:
    if batch := writer.finish():
        ledger.add(batch)


def _convert(number: int, file: BinaryIO, downloads: "_Downloads", writer: PartWriter) -> int:
    tries = 0
    while True:
        try:
            return writer.write(number, file.seek(0, os.SEEK_END), _checked_whole(file, writer))
        except (MalformedCsv, ContractMismatch) as error:
            tries += 1
            if tries == TRIES:
                page = f"Page {number} of {downloads.export.name}"
                raise PageBroken(f"{page} is broken: {error.problem}") from None
        downloads.fetch(number, file)


def _checked_whole(file: BinaryIO, writer: PartWriter) -> Iterable[CsvBlock]:
    """Return a page's rows; all of them are parsed before the first is passed on."""
    if file.seek(0, os.SEEK_END) <= READ_AT_ONCE:
        return list(_checked(rfc4180.mapped(file), writer))
    for _ in _blocks(file, writer):
        pass
    return _blocks(file, writer)


def _blocks(file: BinaryIO, writer: PartWriter) -> Iterator[CsvBlock]:
    file.seek(0)
    return _checked(rfc4180.blocks(file), writer)


def _checked(blocks: Iterator[CsvBlock], writer: PartWriter) -> Iterator[CsvBlock]:
    for block in blocks:
        if tuple(block.table.schema.names) != MESSAGE_COLUMNS:
            # Without a header row they are a customer's values: never print them.
            raise ContractMismatch(f"its columns are not {' and '.join(MESSAGE_COLUMNS)}.")
        yield block if writer.writes_raw else CsvBlock(b"", block.table)


class _Downloads(Closing):
    """Yields pages in their order as files on this machine, and downloads the next ones meanwhile.

    A context manager; its end removes all files.
    """

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

    def close(self) -> None:
        """Stop the downloads and remove all files."""
        self._stopped = True
        self._pool.shutdown(wait=False, cancel_futures=True)
        self._slots.wake()
        self._pool.shutdown()
        for file in list(self._sizes):
            self.discard(file)

    def __iter__(self) -> Iterator[tuple[int, BinaryIO]]:
        while self._pages:
            number, future = self._pages.popleft()
            yield number, future.result()
            self._turn += 1
            self._slots.wake()

    def fetch(self, number: int, file: BinaryIO) -> None:
        """Download a page into a file, replacing its content."""
        export = self.export
        past = export.run_number if export.past else None
        with translate_disk_full(f"page {number} of {export.name}", gettempdir()):
            size = self._client.download_page(export.campaign_id, number, file, past)
        self._slots.spool(size - self._sizes[file])
        self._sizes[file] = size

    def discard(self, file: BinaryIO) -> int:
        """Remove a page from this machine and return its size in bytes."""
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

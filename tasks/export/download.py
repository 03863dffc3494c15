"""Pages downloaded and converted into the lake, by many connections and a converter per core.

A download goes to a nameless file on this machine's disk: memory does not grow with the number of
connections, and a killed process leaves no file behind. A chunk's pages are converted in their
order, several into one part.
"""

from __future__ import annotations

import os
from bisect import insort
from collections import deque
from collections.abc import Callable, Generator, Iterable, Iterator, Sequence
from concurrent.futures import CancelledError, ThreadPoolExecutor
from contextlib import contextmanager
from dataclasses import dataclass, field
from functools import partial
from tempfile import TemporaryFile, gettempdir
from threading import Event, Lock
from time import monotonic
from typing import BinaryIO

from loky import cpu_count

from blocks import DataLake
from blocks.storage.errors import translate_disk_full
from blocks.storage.part_writer import Erasing, PartWriter
from blocks.storage.tombstones import Tombstones
from nudgescribe import rfc4180
from nudgescribe.bases import Closing, Frozen
from nudgescribe.caching import cache_for_threads
from nudgescribe.client import NudgescribeClient
from nudgescribe.contract import MESSAGE_COLUMNS
from nudgescribe.errors import ContractMismatch, NudgeflowError
from nudgescribe.identifiers import Hashes, hash_ids, join_hashes
from nudgescribe.lazy import pl
from nudgescribe.rfc4180 import CsvBlock, MalformedCsv
from nudgescribe.telemetry import within_span
from tasks.export.ledger import Ledger
from tasks.ui.progress import ProgressCounter

CONVERTERS = cpu_count()
CHUNKS_AT_ONCE = 4 * CONVERTERS
"""More than converters, for some wait for their downloads; each holds a part open in memory."""
SPOOL_BYTES = 1024 * 1024 * 1024
"""No further download begins while this much waits on disk for its conversion."""
READ_AT_ONCE = 32 * 1024 * 1024
"""Bytes; a longer page is read in blocks, and twice: first to check that it is whole."""
BYTES_A_SECOND = 2e8
"""What a converter is thought to work off before it has ended its first page."""
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
    """A download that has not begun, the `turn`-th of its chunk; it is `urgent` while its chunk
    waits for just this page.
    """

    turn: int
    urgent: Callable[[], bool]
    begin: Event = field(default_factory=Event)


class Slots:
    """The connections, converters and disk space that all chunks in this process share.

    The chunks' first pages are downloaded first, then their second ones: so all chunks have work to
    the end, and the last pages of a run are shared between the converters. While twice as
    much waits for its conversion as can be converted in the time that a download takes, few
    downloads run: more would only take time from the converters. Without disk space only urgent
    downloads begin: so what is on disk can always be converted, and frees its space.
    """

    def __init__(
        self, downloads: int, converters: int = CONVERTERS, spool_bytes: int = SPOOL_BYTES
    ) -> None:
        self.downloads = downloads
        self._converters = ThreadPoolExecutor(converters)
        self._count = converters
        self._spool_bytes = spool_bytes
        self._lock = Lock()
        self._waiting: list[_Waiting] = []
        self._running = 0
        self._spooled = 0
        self._download_seconds = 0.0
        self._converted_a_second = BYTES_A_SECOND * converters
        """How long the last download took, and how many bytes all converters work off."""

    @property
    def running(self) -> int:
        """Return how many downloads hold a connection."""
        return self._running

    @property
    def waiting(self) -> int:
        """Return how many downloads have not begun."""
        return len(self._waiting)

    @contextmanager
    def downloading(self, turn: int, urgent: Callable[[], bool]) -> Generator[None]:
        """Wait for a connection and for disk space, and hold the connection."""
        waiting = _Waiting(turn, urgent)
        with self._lock:
            insort(self._waiting, waiting, key=lambda entry: entry.turn)
        self.wake()
        waiting.begin.wait()
        begun = monotonic()
        try:
            yield
        finally:
            with self._lock:
                self._running -= 1
                self._download_seconds = monotonic() - begun
            self.wake()

    def convert(self, size: int, conversion: Callable[[], int]) -> int:
        """Convert a page of `size` bytes in a converter, and return what `conversion` returns."""

        def timed() -> int:
            begun = monotonic()
            result = conversion()
            self._converted_a_second = size * self._count / (monotonic() - begun)
            return result

        return self._converters.submit(timed).result()

    def spool(self, size: int) -> None:
        """Count bytes written to disk; a negative size counts bytes removed."""
        with self._lock:
            self._spooled += size
        self.wake()

    def wake(self) -> None:
        """Begin the waiting downloads for which there are a connection and disk space."""
        with self._lock:
            while self._running < self._allowed():
                space = self._spooled < self._spool_bytes
                ready = (entry for entry in self._waiting if space or entry.urgent())
                if (first := next(ready, None)) is None:
                    return
                self._waiting.remove(first)
                self._running += 1
                first.begin.set()

    def _allowed(self) -> int:
        """Return how many downloads may run."""
        # Twice, for neither is steady, and a converter that waits costs more than a download.
        enough = 2 * self._converted_a_second * self._download_seconds
        gives_way = self._download_seconds and self._spooled > enough
        return min(self.downloads, self._count) if gives_way else self.downloads


@cache_for_threads
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
        conversion = _Conversion(writer, ledger, downloads, lake.tombstones())
        last = -1
        for number, file in downloads:
            if number != last + 1:
                conversion.finish_batch()
            last = number
            # In threads of their own: an allocator keeps memory for each thread that has used it.
            rows = slots.convert(downloads.size(file), partial(conversion.convert, number, file))
            counter.add(rows, downloads.discard(file))
            if writer.is_full:
                conversion.finish_batch()
        conversion.finish_batch()


class _Conversion:
    """Converts pages into parts, and enters them in the ledger with a note of their customers.

    Customers with a tombstone are left out.
    """

    def __init__(
        self,
        writer: PartWriter,
        ledger: Ledger,
        downloads: _Downloads,
        tombstones: Tombstones | None,
    ) -> None:
        self._tombstones = tombstones
        self._writer = writer
        self._ledger = ledger
        self._downloads = downloads
        self._hashes: list[Hashes] = []

    def convert(self, number: int, file: BinaryIO) -> int:
        """Write a page and return its number of rows. One that is broken is fetched again.

        Raises PageBroken.
        """
        tries = 0
        while True:
            try:
                size = file.seek(0, os.SEEK_END)
                return self._write(number, size, self._checked(file, size))
            except (MalformedCsv, ContractMismatch) as error:
                tries += 1
                if tries == TRIES:
                    page = f"Page {number} of {self._downloads.export.name}"
                    raise PageBroken(f"{page} is broken: {error.problem}") from None
            self._downloads.fetch(number, file)

    def _write(self, number: int, size: int, blocks: Iterable[CsvBlock]) -> int:
        if self._tombstones is None:
            return self._writer.write(number, size, self._noted(blocks))
        erasing = Erasing(self._tombstones.find)
        kept = self._noted(erasing.blocks(blocks))
        return self._writer.write(number, size, kept, lambda: erasing.rows)

    def finish_batch(self) -> None:
        """Publish what has been converted since the last call, and enter it in the ledger."""
        if batch := self._writer.finish():
            hashes, self._hashes = self._hashes, []
            self._ledger.add(batch, join_hashes(hashes))

    def _checked(self, file: BinaryIO, size: int) -> Iterable[CsvBlock]:
        """Return a page's rows; all of them have been checked before the first is passed on."""
        raw = self._writer.writes_raw
        blocks = _with_our_columns(rfc4180.mapped(file, first_only=raw))
        if size <= READ_AT_ONCE:
            return list(blocks) if raw else [CsvBlock(b"", block.table) for block in blocks]
        if raw:
            checked = [(len(block.raw), block.table) for block in blocks]
            file.seek(size - sum(length for length, _ in checked))
            return (CsvBlock(file.read(length), table) for length, table in checked)
        for _ in _with_our_columns(rfc4180.mapped(file, first_only=True)):
            pass
        return blocks

    def _noted(self, blocks: Iterable[CsvBlock]) -> Iterator[CsvBlock]:
        for block in blocks:
            self._hashes.append(hash_ids(pl.Series(block.table.column(0))))
            yield block


def _with_our_columns(blocks: Iterable[CsvBlock]) -> Iterator[CsvBlock]:
    for block in blocks:
        if tuple(block.table.schema.names) != MESSAGE_COLUMNS:
            # Without a header row they are a customer's values: never print them.
            raise ContractMismatch(f"its columns are not {' and '.join(MESSAGE_COLUMNS)}.")
        yield block


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
        download = within_span(self._download)
        self._pages = deque(
            (number, self._pool.submit(download, turn, number)) for turn, number in enumerate(pages)
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

    def size(self, file: BinaryIO) -> int:
        """Return a page's size in bytes."""
        return self._sizes[file]

    def discard(self, file: BinaryIO) -> int:
        """Remove a page from this machine and return its size in bytes."""
        file.close()
        size = self._sizes.pop(file)
        self._slots.spool(-size)
        return size

    def _download(self, turn: int, number: int) -> BinaryIO:
        with self._slots.downloading(turn, lambda: self._stopped or turn == self._turn):
            if self._stopped:
                raise CancelledError
            file: BinaryIO = TemporaryFile()  # noqa: SIM115 - lives until its page is converted
            self._sizes[file] = 0
            self.fetch(number, file)
            return file

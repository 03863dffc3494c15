"""Fetching a run's export into Parquet: this project's way against others, in turns in one run.

python -m benchmarks.export [ROWS] [--wan] [--rounds N] [--page-rows N] [--downloads N]
                            [--only NAME,...] [--chart FILE.svg]

Each way runs in a fresh process, asks for the link of every page and leaves files in a folder of
its own. The service is benchmarks.pages_server on this machine; --wan makes it answer late and
slowly. Peak memory is what comes on top of the imports.
"""

import argparse
import io
import json
import os
import random
import shutil
import subprocess
import sys
from collections.abc import Callable, Generator, Iterator
from concurrent.futures import Future, ThreadPoolExecutor
from contextlib import AbstractContextManager, contextmanager, nullcontext
from dataclasses import asdict, dataclass, replace
from functools import partial
from importlib import import_module
from itertools import chain
from pathlib import Path
from statistics import median
from tempfile import TemporaryDirectory
from time import perf_counter
from typing import TYPE_CHECKING, Any, BinaryIO

from benchmarks.measuring import Measured, cpu_seconds, status
from benchmarks.pages_server import CAMPAIGN, GROUP, page_file

if TYPE_CHECKING:
    from pyarrow import Table
    from urllib3 import PoolManager

    from blocks.storage.manifest import Format

COLUMNS = ("customer_id", "message")
CONVERTERS = 2
READ_BYTES = 1024 * 1024


@dataclass(frozen=True)
class Job:
    """What a way has to do: bring all pages of the service at `url` into `folder`."""

    url: str
    rows: int
    bytes: int
    pages: int
    downloads: int
    folder: str

    def path(self, name: str) -> Path:
        """Return the path of a file in the folder."""
        return Path(self.folder) / name

    def ask(self, page: int) -> dict[str, Any]:
        """Return the arguments of the call that answers a page's link."""
        body = {"campaign_id": CAMPAIGN, "file_num": page, "export_type": "url"}
        return {"url": f"{self.url}/v1/messages/fetch", "json": body}


# ---- ways: each returns the rows it has written -----------------------------------------------


def raw(job: Job) -> int:
    """Fetch the pages and parse nothing: no way can be faster."""

    def fetch(page: int) -> int:
        return _spool(http, job, page, job.path(f"{page}.csv"))

    with _pool(job) as http, ThreadPoolExecutor(job.downloads) as threads:
        return job.rows if sum(threads.map(fetch, range(job.pages))) == job.bytes else 0


def naive(job: Job) -> int:
    """Run the script one writes first: page after page, requests and pandas."""
    requests, pandas = map(_untyped, ("requests", "pandas"))
    rows = 0
    for page in range(job.pages):
        link = requests.post(**job.ask(page), timeout=60).json()["url"]
        text = requests.get(link, timeout=60).text
        frame = pandas.read_csv(io.StringIO(text), dtype=str, keep_default_na=False)
        frame.to_parquet(job.path(f"{page}.parquet"), index=False)
        rows += len(frame)
    return rows


def dlt_arrow(job: Job) -> int:
    """Hand dlt Arrow tables from parallel threads; its filesystem destination writes Parquet."""
    workers = str(job.downloads)
    os.environ.update(EXTRACT__WORKERS=workers, EXTRACT__MAX_PARALLEL_ITEMS=workers)
    dlt = _untyped("dlt")

    def numbers() -> Iterator[int]:
        yield from range(job.pages)

    def messages(page: int) -> "Table":
        data = http.request("GET", _link(http, job, page)).data
        return _parsed(io.BytesIO(data), len(data))

    pipeline = dlt.pipeline(
        "export",
        pipelines_dir=str(job.path("pipelines")),
        destination=dlt.destinations.filesystem(job.path("lake").as_uri()),
        dataset_name="export",
    )
    pages = dlt.resource(numbers) | dlt.transformer(messages, parallelized=True)
    with _pool(job) as http:
        pipeline.run(pages, loader_file_format="parquet")
    return pipeline.last_trace.last_normalize_info.row_counts["messages"]


def notes(job: Job) -> int:
    """Download to files in many threads, convert them in a few: the fastest by hand."""

    def fetch(page: int) -> Future[int]:
        part = job.path(f"{page}.part")
        _spool(http, job, page, part)
        return converters.submit(_convert, part)

    with (
        _pool(job) as http,
        ThreadPoolExecutor(CONVERTERS) as converters,
        ThreadPoolExecutor(job.downloads) as threads,
    ):
        return sum(rows.result() for rows in threads.map(fetch, range(job.pages)))


def ours(job: Job, file_format: "Format" = "parquet") -> int:
    """Use this project's data path without Prefect: fetch, convert, prove that all is there."""
    from blocks import DataLake, NudgescribeAccount
    from tasks.export.download import CHUNKS_AT_ONCE, ExportRef, Slots, fetch_pages
    from tasks.export.ledger import Ledger
    from tasks.export.run import chunks
    from tasks.export.verify import doubtful_pages
    from tasks.ui.progress import ProgressCounter

    account = NudgescribeAccount.model_validate(_account(job))
    lake = DataLake(root=job.folder, format=file_format)
    export = ExportRef(
        campaign_id=CAMPAIGN,
        run_number=1,
        customer_group_id=GROUP,
        job_uid=None,
        past=False,
        pages=job.pages,
        rows=job.rows,
        writer="benchmark",
        staging="staging",
        generation=0,
        done=False,
    )
    slots, counter = Slots(job.downloads), ProgressCounter()

    def fetch(chunk: tuple[int, int]) -> None:
        with account.get_client() as client:
            fetch_pages(client, lake, export, range(chunk[0], chunk[1] + 1), slots, counter)

    with ThreadPoolExecutor(CHUNKS_AT_ONCE) as threads:
        list(threads.map(fetch, chunks(export)))
    doubtful, _ = doubtful_pages(lake, export, Ledger(lake.files, export.staging))
    return counter.progress.rows - len(doubtful)


def flow(job: Job) -> int:
    """Run the flow as people do, its tasks recorded by a Prefect server."""
    from blocks import DataLake, NudgescribeAccount
    from flows.export import export_messages

    account = NudgescribeAccount.model_validate("benchmark")
    (fetched,) = export_messages(CAMPAIGN, account, DataLake.model_validate("benchmark"))
    return fetched.rows


def prepare_flow(job: Job) -> AbstractContextManager[None]:
    """Return a context with a Prefect server of its own and the blocks; it is not measured."""
    from prefect.testing.utilities import prefect_test_harness

    from blocks import DataLake, NudgescribeAccount

    @contextmanager
    def prepared() -> Generator[None]:
        with prefect_test_harness(server_startup_timeout=120):
            NudgescribeAccount.model_validate(_account(job)).save("benchmark")
            DataLake(root=job.folder).save("benchmark")
            yield

    return prepared()


def _account(job: Job) -> dict[str, str]:
    names = ("email", "password", "api_key", "api_code")
    return {"base_url": job.url, **dict.fromkeys(names, "benchmark")}


ARROW = "urllib3 pyarrow.csv pyarrow.parquet"
DLT = (
    "pandas dlt.common.libs.pyarrow dlt.sources.helpers.requests "
    "dlt.destinations.impl.filesystem.filesystem fsspec.implementations.local"
)
LAZY = "polars pyarrow.compute numpy tenacity"
OURS = f"blocks {ARROW} {LAZY} tasks.export.run"
WAYS: dict[str, tuple[Callable[[Job], int], str]] = {
    "raw": (raw, "urllib3"),
    "naive": (naive, "requests pandas pyarrow.parquet"),
    "dlt": (dlt_arrow, f"{ARROW} {DLT}"),
    "notes": (notes, ARROW),
    "ours": (ours, OURS),
    "csv": (partial(ours, file_format="csv"), OURS),
    "csv.zst": (partial(ours, file_format="csv.zst"), OURS),
    "flow": (flow, f"{OURS} flows.export"),
}
"""Each with what it imports before the clock starts."""
DEFAULT = list(WAYS)
OWN = ("ours", "csv", "csv.zst", "flow")


def _untyped(module: str) -> Any:
    """Import a module that has no types, or one that only some ways may pay for."""
    return import_module(module)


def _pool(job: Job) -> "PoolManager":
    return _untyped("urllib3").PoolManager(num_pools=1, maxsize=job.downloads)


def _link(http: "PoolManager", job: Job, page: int) -> str:
    return http.request("POST", **job.ask(page)).json()["url"]


def _spool(http: "PoolManager", job: Job, page: int, target: Path) -> int:
    """Write a page to `target` and return its size in bytes."""
    link = _link(http, job, page)
    with http.request("GET", link, preload_content=False) as response, target.open("wb") as file:
        shutil.copyfileobj(response, file, READ_BYTES)
        return file.tell()


def _convert(part: Path) -> int:
    """Put Parquet in place of a CSV and return its number of rows."""
    import pyarrow as pa
    from pyarrow.parquet import ParquetWriter

    target = part.with_suffix(".parquet")
    with pa.memory_map(str(part)) as file:
        table = _parsed(file, part.stat().st_size)
    writer = ParquetWriter(
        target, table.schema, compression="zstd", compression_level=1, use_dictionary=False
    )
    writer.write_table(table)
    writer.close()
    part.unlink()
    return table.num_rows


def _parsed(file: BinaryIO, size: int) -> "Table":
    import pyarrow as pa
    from pyarrow import csv

    types = {name: pa.string() for name in COLUMNS}
    return csv.read_csv(
        file,
        # One block: a value cut between two can lose a line feed, see apache/arrow#51368.
        csv.ReadOptions(column_names=[], block_size=size, use_threads=False),
        csv.ParseOptions(newlines_in_values=True, ignore_empty_lines=False),
        csv.ConvertOptions(column_types=types, strings_can_be_null=False),
    )


# ---- a process for each -----------------------------------------------------------------------


def child(name: str, job: Job) -> Measured:
    """Run a way in this process, and return what was measured."""
    way, modules = WAYS[name]
    for module in modules.split():
        import_module(module)
    with prepare_flow(job) if name == "flow" else nullcontext():
        rss, cpu, start = status("VmRSS"), cpu_seconds(), perf_counter()
        rows = way(job)
        return Measured(perf_counter() - start, cpu_seconds() - cpu, rows, rss, status("VmHWM"))


def measure(name: str, job: Job) -> Measured:
    """Run a way in a process and a folder of its own, and return what was measured."""
    with TemporaryDirectory() as folder:
        command = [sys.executable, "-m", "benchmarks.export", "--child", name]
        command.append(json.dumps(asdict(replace(job, folder=folder))))
        quiet = {"RUNTIME__DLTHUB_TELEMETRY": "false", "DLT_DATA_DIR": folder}
        quiet |= {"PREFECT_LOGGING_LEVEL": "ERROR", "PREFECT_SERVER_ANALYTICS_ENABLED": "false"}
        printed = subprocess.check_output(command, env=os.environ | quiet)  # noqa: S603 - ours
    measured = Measured(**json.loads(printed.splitlines()[-1]))
    if measured.rows != job.rows:
        raise SystemExit(f"{name}: {measured.rows:,} rows instead of {job.rows:,}")
    return measured


# ---- the export -------------------------------------------------------------------------------

NAMES = ("Zoë", "José", "Søren", "Anna", "Grace", "Liam", "Chloé", "Omar", "Priya", "Bjørn")
SENTENCES = (
    "You have been with us for a while, and we would like to say thank you.",
    "Your points are waiting for you, and they do not expire this year.",
    "It takes two minutes and you can change your mind at any time.",
    "There is a small surprise in it for everybody who answers soon.",
)
THINGS = ("boots", "maps", "lamps", "ropes", "kites", "canoes", "bikes", "hats", "mugs", "rugs")
OFFERS = ('our "Early Bird" fare', 'our "Gold" plan, a year', "two nights, breakfast included")
CLOSINGS = ("See you soon 🎉", "Yours, the team 💌", "Happy travels ✈️", "Take care 👋🏽")


def write_pages(folder: Path, rows: int, page_rows: int) -> int:
    """Write pages and return their size in bytes; no id is repeated, every other page has the
    same messages.
    """
    kinds = [(end, _texts(min(rows, page_rows), end)) for end in (b"\r\n", b"\n")]
    size = 0
    for number, first in enumerate(range(0, rows, page_rows)):
        end, texts = kinds[number % len(kinds)]
        ids = (b"%010d," % row for row in range(first, min(first + page_rows, rows)))
        body = b"".join(chain.from_iterable(zip(ids, texts, strict=False)))
        size += page_file(folder, number).write_bytes(",".join(COLUMNS).encode() + end + body)
    return size


def _texts(count: int, end: bytes) -> list[bytes]:
    """Return messages as they stand in a row, up to its end."""
    rng = random.Random(end)
    texts = (_message(rng).replace('"', '""') for _ in range(count))
    return [f'"{text}"'.encode() + end for text in texts]


def _message(rng: random.Random) -> str:
    said = "\n".join(rng.sample(SENTENCES, 2))
    things = ", ".join(rng.choices(THINGS, k=12))
    price = f"£{rng.randrange(1000, 99999) / 100:.2f}, quote {rng.randrange(36**6)}"
    return (
        f"Hello {rng.choice(NAMES)},\n{said}\nYou looked at {things}. Until "
        f"{rng.randrange(1, 29)} May {rng.choice(OFFERS)} is yours for {price}. "
        f"{rng.choice(CLOSINGS)}"
    )


@contextmanager
def served(folder: Path, rows: int, wan: bool) -> Generator[str]:
    """Run a service with the pages of a folder; yield its URL."""
    command = [sys.executable, "-m", "benchmarks.pages_server", str(folder), str(rows)]
    command += ["--wan"] * wan
    pipe = subprocess.PIPE
    with subprocess.Popen(command, stdin=pipe, stdout=pipe, text=True) as process:  # noqa: S603 - ours
        assert process.stdout
        yield process.stdout.readline().strip()


# ---- what is printed --------------------------------------------------------------------------


def table(runs: dict[str, list[Measured]], job: Job) -> str:
    """Return a table of the medians of all rounds, and their ratios."""
    heads = ("wall s", "min", "krows/s", "MB/s", "CPU s", "RSS+ MB", "to raw")
    lines = [f"{'':8}" + "".join(f"{head:>9}" for head in heads)]
    walls = _walls(runs)
    for name, wall in walls.items():
        least = min(run.wall for run in runs[name])
        cpu = median(run.cpu for run in runs[name])
        rss = median(run.peak - run.rss for run in runs[name]) * 1024 / 1e6
        line = f"{name:8}{wall:9.2f}{least:9.2f}{job.rows / wall / 1e3:9,.0f}"
        line += f"{job.bytes / wall / 1e6:9,.0f}{cpu:9.2f}{rss:9,.0f}"
        lines.append(line + (f"{wall / walls['raw']:9.2f}" if "raw" in walls else f"{'-':>9}"))
    lines.append("")
    for name, wall in walls.items():
        lines.append(f"{name:8}{'█' * round(1 + 50 * wall / max(walls.values()))} {wall:.2f} s")
    return "\n".join(lines)


def chart(runs: dict[str, list[Measured]], title: str) -> str:
    """Return the medians as bars, an SVG."""
    walls = _walls(runs)
    height = 50 + 30 * len(walls)
    lines = [
        f'<svg xmlns="http://www.w3.org/2000/svg" viewBox="0 0 640 {height}" '
        'font-family="sans-serif" font-size="14">',
        f'<rect width="640" height="{height}" fill="white"/>',
        f'<text x="16" y="26">{title}</text>',
    ]
    for number, (name, wall) in enumerate(walls.items()):
        top, width = 42 + 30 * number, 460 * wall / max(walls.values())
        colour = "#2563eb" if name in OWN else "#94a3b8"
        lines += [
            f'<text x="68" y="{top + 15}" text-anchor="end">{name}</text>',
            f'<rect x="76" y="{top}" width="{width:.1f}" height="20" fill="{colour}"/>',
            f'<text x="{82 + width:.1f}" y="{top + 15}">{wall:.2f} s</text>',
        ]
    return "\n".join([*lines, "</svg>", ""])


def _walls(runs: dict[str, list[Measured]]) -> dict[str, float]:
    return {name: median(run.wall for run in each) for name, each in runs.items()}


def main(options: argparse.Namespace) -> None:
    """Measure the ways in turns; print each run and a table."""
    names: list[str] = options.only.split(",")
    runs: dict[str, list[Measured]] = {name: [] for name in names}
    with TemporaryDirectory() as folder:
        size = write_pages(Path(folder), options.rows, options.page_rows)
        pages = -(-options.rows // options.page_rows)
        title = f"{options.rows:,} rows, {pages} pages, {size / 1e6:,.0f} MB, "
        title += "120 ms away, 12 MB/s a connection" if options.wan else "on one machine"
        print(title, flush=True)
        with served(Path(folder), options.rows, options.wan) as url:
            job = Job(url, options.rows, size, pages, options.downloads, folder)
            for number in range(options.rounds):
                # Each round begins with another way: none is always the one after the heaviest.
                turn = number % len(names)
                for name in names[turn:] + names[:turn]:
                    runs[name].append(measure(name, job))
                    print(f"round {number + 1}  {name:8}{runs[name][-1].wall:8.2f} s", flush=True)
    print(f"\n{table(runs, job)}")
    if options.chart:
        options.chart.write_text(chart(runs, title))


if __name__ == "__main__":
    if sys.argv[1:2] == ["--child"]:
        print(json.dumps(asdict(child(sys.argv[2], Job(**json.loads(sys.argv[3]))))))
    else:
        parser = argparse.ArgumentParser()
        parser.add_argument("rows", nargs="?", type=int, default=2_000_000, metavar="ROWS")
        parser.add_argument("--wan", action="store_true")
        parser.add_argument("--rounds", type=int, default=3)
        parser.add_argument("--page-rows", type=int, default=50_000)
        parser.add_argument("--downloads", type=int, default=16)
        parser.add_argument("--only", default=",".join(DEFAULT), metavar="NAME,...")
        parser.add_argument("--chart", type=Path, metavar="FILE.svg")
        main(parser.parse_args())

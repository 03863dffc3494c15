"""What grows with customers, pages, segments, campaigns and runs: whole refreshes at two sizes of
each, a factor of ten apart, and carried on in a straight line.

python -m benchmarks.growth

Each size is refreshed in a process of its own, one refresh after the other, against a sandbox and
a Prefect server on SQLite of this machine. The figures are of the refreshing process alone.
"""

import json
import subprocess
import sys
from collections import Counter
from dataclasses import asdict, astuple, dataclass, fields, replace
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import TYPE_CHECKING, Any

from benchmarks.measuring import cpu_seconds, draw, status
from deployments.environment import free_port, keep_prefect_at

if TYPE_CHECKING:  # Prefect must not be imported before its settings are made.
    from sandbox.seed import Seeded


@dataclass(frozen=True)
class Size:
    """How large a world is."""

    customers: int = 10_000
    pages: int = 10
    segments: int = 16
    campaigns: int = 1
    runs: int = 1


@dataclass(frozen=True)
class Used:
    """What refreshes have used: MiB of memory above the imports at the peak, MB in the lake, calls
    of the service and of Prefect's API, objects in the lake, CPU seconds.
    """

    memory: float
    disk: float
    service: float
    prefect: float
    objects: float
    cpu: float


BASE, FACTOR = Size(), 10
BASES = {"customers": Size(customers=100_000)}
"""Of what does not begin with BASE: fewer customers than a batch would need less memory."""
AIMS = Size(customers=100_000_000, pages=2_000, segments=10_000, campaigns=10_000, runs=365)
"""A page has 50,000 customers; a campaign is refreshed every day of a year."""
HEADS = ("memory MiB", "lake MB", "calls", "Prefect calls", "objects", "CPU s")


def refresh_all(size: Size, folder: Path) -> Used:
    """Seed a sandbox of this size and refresh its campaigns. Measure the refreshes."""
    import polars as pl

    from benchmarks.customers import listed
    from deployments import local

    list_, data, lake = folder / "list.csv", folder / "data", folder / "lake"
    plans = (pl.int_range(pl.len()) % size.segments).cast(pl.String)
    listed(size.customers).with_columns(plan="plan " + plans).write_csv(list_)
    options = ("--rows-per-file", str(size.customers // size.pages))
    wanted = ("--list", str(list_), "--segments", "plan", *options)
    seeded = [local.seed(data, *wanted) for _ in range(size.campaigns)]
    service = ("--phase-seconds", "0", "--approve-after", "0.2", *options)
    with local.sandbox(data, free_port(), *service) as url:
        _refresh(url, seeded[0], list_, folder / "warm-up")
        calls = _count_calls(url)
        Path("/proc/self/clear_refs").write_text("5")  # the peak begins anew
        rss, cpu = status("VmRSS"), cpu_seconds()
        for _ in range(size.runs):
            for campaign in seeded:
                _refresh(url, campaign, list_, lake)
        cpu = cpu_seconds() - cpu
    files = [file for file in lake.rglob("*") if file.is_file()]
    return Used(
        memory=(status("VmHWM") - rss) / 1024,
        disk=sum(file.stat().st_size for file in files) / 1e6,
        service=calls["service"],
        prefect=calls["Prefect"],
        objects=len(files),
        cpu=cpu,
    )


def _refresh(url: str, seeded: "Seeded", list_: Path, lake: Path) -> None:
    from deployments import local
    from flows.options import RefreshOptions
    from flows.refresh import campaign_refresh
    from tasks.customers.guardrails import Guardrails

    crm = local.file_crm(list_)
    account, data_lake = local.save_blocks(url, seeded, crm, lake)
    options = RefreshOptions(guardrails=Guardrails(max_growth=2))
    campaign_refresh(seeded.campaign_id, account, crm, data_lake, options=options)


def _count_calls(service: str) -> Counter[str]:
    """Count this process's calls from now on; links' bodies come by urllib3."""
    import httpx
    import urllib3

    calls: Counter[str] = Counter()
    send, send_async = httpx.Client.send, httpx.AsyncClient.send
    request = urllib3.PoolManager.request

    def count(url: object) -> None:
        calls["service" if str(url).startswith(service) else "Prefect"] += 1

    def counted(self: httpx.Client, sent: httpx.Request, **options: Any) -> httpx.Response:
        count(sent.url)
        return send(self, sent, **options)

    async def counted_async(
        self: httpx.AsyncClient, sent: httpx.Request, **options: Any
    ) -> httpx.Response:
        count(sent.url)
        return await send_async(self, sent, **options)

    def counted_link(self: Any, method: str, url: str, **options: Any) -> Any:
        count(url)
        return request(self, method, url, **options)

    httpx.Client.send = counted  # type: ignore[method-assign]
    httpx.AsyncClient.send = counted_async  # type: ignore[method-assign]
    urllib3.PoolManager.request = counted_link  # type: ignore[method-assign]
    return calls


def measure(size: Size) -> Used:
    """Refresh a world of this size in a process of its own."""
    with TemporaryDirectory() as folder:
        command = [sys.executable, "-m", "benchmarks.growth", "--child", json.dumps(asdict(size))]
        printed = subprocess.check_output([*command, folder])  # noqa: S603 - ours
        return Used(**json.loads(printed.splitlines()[-1]))


def carried_on(small: Used, large: Used, size: int, aim: int) -> Used:
    """Return what a straight line through two sizes, the second FACTOR times the first, says."""
    steps = (aim - size) / (size * (FACTOR - 1))
    pairs = zip(astuple(small), astuple(large), strict=True)
    return Used(*(a + max(0, b - a) * steps for a, b in pairs))


def line(name: str, number: int, used: Used) -> str:
    """Return a line of the table."""
    return f"{name:11}{number:13,}" + "".join(f"{each:16,.1f}" for each in astuple(used))


def main() -> None:
    """Measure a base and ten times of each size; print a table."""
    print(f"{'':24}" + "".join(f"{head:>16}" for head in HEADS))
    growth: dict[str, float] = {}
    measured: dict[Size, Used] = {}
    for name in (field.name for field in fields(Size)):
        start = BASES.get(name, BASE)
        size, aim = getattr(start, name), getattr(AIMS, name)
        if start not in measured:
            measured[start] = measure(start)
        base, large = measured[start], measure(replace(start, **{name: size * FACTOR}))
        aimed = carried_on(base, large, size, aim)
        print(line(name, size, base))
        print(line("", size * FACTOR, large))
        print(line("", aim, aimed), flush=True)
        growth[name] = large.cpu / base.cpu
    draw("growth", f"CPU of refreshes, {FACTOR} times as many to the base", growth, "x", ours="")


if __name__ == "__main__":
    if sys.argv[1:2] == ["--child"]:
        where, server_port = Path(sys.argv[3]), free_port()
        keep_prefect_at(where / "prefect", server_port, PREFECT_LOGGING_LEVEL="ERROR")
        from deployments import local

        with local.prefect_server(server_port) as server:
            server.wait()
            print(json.dumps(asdict(refresh_all(Size(**json.loads(sys.argv[2])), where))))
    else:
        main()

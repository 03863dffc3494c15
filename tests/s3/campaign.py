"""A published campaign whose pages are scripted, fetched by the flow people run."""

from collections import defaultdict
from typing import Any
from urllib.parse import urlsplit

import polars as pl
import psutil

from benchmarks.pages_server import CAMPAIGN, answers
from blocks import DataLake, NudgescribeAccount
from flows.export import export_messages
from flows.options import ExportOptions
from tasks.export.run import RunInLake
from tests.support.exports import Export, page
from tests.support.http_server import Reply, Request


class Published(Export):
    """Pages with a message to each customer of the campaign's group. `processes` are those that
    have downloaded a page, by its number.
    """

    def __init__(self, pages: int, page_rows: int) -> None:
        numbers = range(pages * page_rows)
        ids = [f"{number:07d}" for number in numbers]
        super().__init__([page(ids[first : first + page_rows]) for first in numbers[::page_rows]])
        self.answers = answers(len(ids), pages)
        self.processes: defaultdict[int, list[int]] = defaultdict(list)

    @property
    def downloaders(self) -> set[int]:
        return {process for each in self.processes.values() for process in each}

    def download(self, request: Request, number: int) -> Reply:
        ends = request.client_port, urlsplit(self.url).port
        (process,) = (
            each.pid
            for each in psutil.net_connections("tcp")
            if each.laddr and each.raddr and (each.laddr.port, each.raddr.port) == ends
        )
        assert process is not None
        self.processes[number].append(process)
        return super().download(request, number)


def save(name: str, export: Export, lake: DataLake) -> dict[str, Any]:
    """Saves the blocks an export needs; returns them as its parameters."""
    secrets = ("email", "password", "api_key", "api_code")
    values = {"base_url": export.url, **dict.fromkeys(secrets, "any")}
    account = NudgescribeAccount.model_validate(values)
    account.save(name, overwrite=True)
    lake.save(name, overwrite=True)
    return {"account": account, "lake": lake}


def fetch(blocks: dict[str, Any], **options: Any) -> RunInLake:
    (fetched,) = export_messages(CAMPAIGN, **blocks, options=ExportOptions.model_validate(options))
    return fetched


def is_whole(lake: DataLake, rows: int) -> bool:
    """Whether the campaign's run in the lake holds a message to each customer, in their order."""
    read = lake.read(CAMPAIGN, 1, "polars")
    assert isinstance(read, pl.DataFrame)
    ids = [f"{number:07d}" for number in range(rows)]
    return read.rows() == [(one, f"to {one}") for one in ids]

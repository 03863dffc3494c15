"""The last page of a flow run, as text at the end of its log for those who watch a terminal."""

import re
from io import StringIO

import httpx
from prefect.client.orchestration import SyncPrefectClient, get_client
from prefect.client.schemas.filters import (
    ArtifactFilter,
    ArtifactFilterFlowRunId,
    ArtifactFilterType,
)
from prefect.client.schemas.objects import Artifact, FlowRun
from prefect.client.schemas.sorting import ArtifactSort
from prefect.context import FlowRunContext
from prefect.exceptions import PrefectHTTPStatusError
from prefect.logging import get_run_logger
from prefect.logging.handlers import APILogHandler
from prefect.utilities.urls import url_for
from rich.console import Console
from rich.markdown import Markdown

from tasks.ui.charts import NOT_INSTALLED
from tasks.ui.markdown import QUOTING

WIDTH = 58
"""Of the text in characters: `--watch` sets it in by 21, and a terminal may have 80."""
_IMAGE = r"^!\[[^\]]*\]\(data:[^)]*\)$"
_QUOTED = rf"^{QUOTING}$.*?(?=^## |\Z)"
_LEFT_OUT = re.compile(f"{_IMAGE}|{re.escape(NOT_INSTALLED)}|(?s:{_QUOTED})", re.MULTILINE)


def log_last_page() -> None:
    """Log the newest page of this flow run and its address, if a deployment has started it.

    Whoever calls a flow in a program has its result. Where Prefect does not answer, nothing is lost
    but the text.
    """
    context = FlowRunContext.get()
    flow_run = context and context.flow_run
    if flow_run is None or flow_run.deployment_id is None:
        return
    logger = get_run_logger()
    try:
        with get_client(sync_client=True) as client:
            page = _find(client, flow_run)
    except (PrefectHTTPStatusError, httpx.TransportError) as error:
        logger.info("The page of this flow run cannot be shown here: %s.", type(error).__name__)
        return
    if page is not None:
        logger.info("%s\n%s", page.description, as_text(str(page.data)))
        if url := _address(page, flow_run):
            logger.info("This page in Prefect's UI: %s", url)
        # Who watches hears of the end at once, and of what is logged after it no more.
        APILogHandler().flush()


def _address(page: Artifact, flow_run: FlowRun) -> str | None:
    """Return the address of a page, for which Prefect has no function; None if nobody knows it."""
    beside = url_for("flow-run", obj_id=flow_run.id)
    return beside and f"{beside.partition('/runs/')[0]}/artifacts/artifact/{page.id}"


def as_text(page: str) -> str:
    """Return markdown as it reads in a terminal, without images and what it quotes."""
    console = Console(file=StringIO(), width=WIDTH, color_system=None)
    with console.capture() as captured:
        console.print(Markdown(_LEFT_OUT.sub("", page), hyperlinks=False))
    return "\n".join(line.rstrip() for line in captured.get().splitlines()).strip("\n")


def _find(client: SyncPrefectClient, flow_run: FlowRun) -> Artifact | None:
    wanted = ArtifactFilter(
        flow_run_id=ArtifactFilterFlowRunId(any_=[flow_run.id]),
        type=ArtifactFilterType(any_=["markdown"]),
    )
    found = client.read_artifacts(artifact_filter=wanted, sort=ArtifactSort.CREATED_DESC, limit=1)
    return found[0] if found else None

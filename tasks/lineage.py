"""Where data came from, told to whatever speaks OpenLineage: list -> group -> run -> lake.

OpenLineage's own variables and file say where to. Events name blocks, campaigns and places in the
lake, and count rows: there is no value, no address of a source and no text of an error in them.
"""

import atexit
import logging
import os
from collections.abc import Generator, Iterable
from contextlib import contextmanager
from dataclasses import dataclass
from datetime import UTC, datetime
from functools import cache
from queue import SimpleQueue
from threading import Thread
from typing import TYPE_CHECKING, Any, Literal
from urllib.parse import urlsplit
from uuid import UUID, uuid5

from prefect.assets import Asset
from prefect.context import FlowRunContext

from blocks import DataLake
from blocks.extras import how_to_install, is_installed
from blocks.storage.manifest import campaign_partition

if TYPE_CHECKING:
    from openlineage.client.event_v2 import RunEvent

NAMESPACE = "OPENLINEAGE_NAMESPACE"
WHERE = ("OPENLINEAGE_URL", "OPENLINEAGE_CONFIG", "OPENLINEAGE__TRANSPORT")
"""How variables begin that name a receiver."""
PRODUCER = "urn:nudgeflow"
"""Names the program that tells, as lineage wants it: a URI, which need not lead anywhere."""
CLOSING_SECONDS = 5.0
Step = Literal["upload", "rerun", "export"]
Kind = Literal["START", "COMPLETE", "FAIL"]
logger = logging.getLogger(__name__)


@dataclass(frozen=True)
class Dataset:
    """What a step reads or writes: its names in OpenLineage, and what is known of its content."""

    namespace: str
    name: str
    version: str | None = None

    @classmethod
    def of(cls, asset: Asset, version: int | None = None) -> "Dataset":
        """Return the dataset that Prefect knows as an asset."""
        scheme, _, rest = asset.key.partition("://")
        block, _, name = rest.partition("/")
        return cls(f"{scheme}://{block}", name, None if version is None else str(version))

    @classmethod
    def messages(cls, lake: DataLake, campaign_id: str, run: int) -> "Dataset":
        """Return a campaign's messages, named as other tools name what they read in the lake."""
        url = urlsplit(lake.files.url(f"messages/{campaign_partition(campaign_id)}"))
        where = f"{url.scheme}://{url.netloc}" if url.netloc else "file"
        return cls(where, url.path.lstrip("/") if url.netloc else url.path, str(run))


@dataclass
class Written:
    """How much a step has written, once it is known."""

    rows: int | None = None
    files: int | None = None


@contextmanager
def told(step: Step, source: Dataset, target: Dataset) -> Generator[Written]:
    """Tell that the block makes the target of the source, and how it ends. Does nothing unless the
    environment names a receiver.
    """
    written, emit = Written(), _open_sender()
    if emit is None:
        yield written
        return

    def tell(kind: Kind, written: Written) -> None:
        try:
            emit(_event(kind, step, source, target, written))
        except Exception as error:
            # Such as a library of another version, or a name that it refuses.
            logger.warning(
                "No lineage is told of a step, %s; the flow goes on.", type(error).__name__
            )

    tell("START", Written())
    try:
        yield written
    except BaseException:
        tell("FAIL", Written())
        raise
    tell("COMPLETE", written)


class _Sender:
    """Sends events one after the other in a thread of its own; after a failure no more."""

    def __init__(self) -> None:
        self._events: SimpleQueue[RunEvent | None] = SimpleQueue()
        self._thread = Thread(target=self._run, daemon=True)
        self._thread.start()
        atexit.register(self.close)

    def emit(self, event: "RunEvent") -> None:
        """Send an event later."""
        self._events.put(event)

    def close(self) -> None:
        """Wait until all is sent, but not for long."""
        self._events.put(None)
        self._thread.join(CLOSING_SECONDS)

    def _run(self) -> None:
        from openlineage.client import OpenLineageClient

        try:
            client = OpenLineageClient()
            while event := self._events.get():
                client.emit(event)
            client.close()
        except Exception as error:
            # The error's text may hold the receiver's address and its key.
            logger.warning(
                "No lineage is told from here on, %s; flows go on without.", type(error).__name__
            )


@cache
def _sender_of(process: int) -> _Sender | None:
    if not is_installed("openlineage"):
        logger.warning(
            "The environment names a receiver of lineage, which needs the extra openlineage: %s. "
            "Nothing is sent.",
            how_to_install("openlineage"),
        )
        return None
    return _Sender()


def _open_sender() -> Any:
    """Return the function that sends an event; None if nobody wants it, or it cannot be sent."""
    disabled = os.environ.get("OPENLINEAGE_DISABLED", "").strip().lower() == "true"
    named = any(value and name.startswith(WHERE) for name, value in os.environ.items())
    if disabled or not named or FlowRunContext.get() is None:
        return None
    sender = _sender_of(os.getpid())  # a fork has no thread of its parent's
    return sender and sender.emit


def _event(
    kind: Kind, step: Step, source: Dataset, target: Dataset, written: Written
) -> "RunEvent":
    from openlineage.client.event_v2 import Job, Run, RunEvent, RunState
    from openlineage.client.facet_v2 import parent_run

    context = FlowRunContext.get()
    assert context
    assert context.flow
    assert context.flow_run
    namespace, flow = os.environ.get(NAMESPACE) or "nudgeflow", context.flow.name
    campaign_id = (context.parameters or {}).get("campaign_id")
    flow_run, names = context.flow_run.id, [flow, *([campaign_id] if campaign_id else []), step]
    parent = parent_run.ParentRunFacet(
        run=parent_run.Run(runId=str(flow_run)), job=parent_run.Job(namespace=namespace, name=flow)
    )
    return RunEvent(
        eventType=RunState[kind],
        eventTime=datetime.now(UTC).isoformat(),
        run=Run(
            runId=str(_run_id(flow_run, context.flow_run.run_count, [step, target.name])),
            facets={"parent": parent},
        ),
        job=Job(namespace=namespace, name=".".join(names)),
        inputs=[_input(source)],
        outputs=[_output(target, written)],
        producer=PRODUCER,
    )


def _run_id(flow_run: UUID, attempt: int, names: Iterable[str]) -> UUID:
    """Return the same id for a step's begin and its end; each try of a flow run has its own."""
    return uuid5(flow_run, "/".join([str(attempt), *names]))


def _input(dataset: Dataset) -> Any:
    from openlineage.client.event_v2 import InputDataset

    return InputDataset(dataset.namespace, dataset.name, facets=_version(dataset))


def _output(dataset: Dataset, written: Written) -> Any:
    from openlineage.client.event_v2 import OutputDataset
    from openlineage.client.facet_v2 import output_statistics_output_dataset as statistics

    counts = statistics.OutputStatisticsOutputDatasetFacet(
        rowCount=written.rows, fileCount=written.files
    )
    facets: dict[str, Any] = {} if written == Written() else {"outputStatistics": counts}
    return OutputDataset(
        dataset.namespace, dataset.name, facets=_version(dataset), outputFacets=facets
    )


def _version(dataset: Dataset) -> dict[str, Any]:
    from openlineage.client.facet_v2 import dataset_version_dataset

    if dataset.version is None:
        return {}
    version = dataset_version_dataset.DatasetVersionDatasetFacet(datasetVersion=dataset.version)
    return {"version": version}

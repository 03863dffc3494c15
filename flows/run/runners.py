"""Where chunks of pages are worked on: in threads, or on the machines of a Dask or Ray cluster."""

from concurrent.futures import CancelledError
from typing import Any

from prefect.task_runners import TaskRunner, ThreadPoolTaskRunner

from flows.options import Fetching
from tasks.export.download import CHUNKS_AT_ONCE


def runner_of(options: Fetching) -> TaskRunner[Any]:
    """Where the chunks are worked on."""
    if options.task_runner == "dask":
        from prefect_dask.task_runners import DaskTaskRunner

        return DaskTaskRunner(address=options.cluster)
    if options.task_runner == "ray":
        from prefect_ray.task_runners import RayTaskRunner

        quiet = {"include_dashboard": False, "log_to_driver": False}
        return RayTaskRunner(options.cluster, init_kwargs=None if options.cluster else quiet)
    return ThreadPoolTaskRunner[Any](max_workers=CHUNKS_AT_ONCE)


def losses_of(options: Fetching) -> tuple[type[Exception], ...]:
    """What is raised in place of a chunk's result when the cluster has lost the chunk."""
    if options.task_runner == "dask":
        from distributed import KilledWorker

        return (KilledWorker, CancelledError)
    return (CancelledError,)

"""What nobody needs any more, removed from the lake."""

from datetime import datetime, timedelta

from prefect import task
from prefect.logging import get_run_logger
from pydantic import BaseModel, ConfigDict

from blocks import DataLake
from blocks.files import DRAFT, Files
from blocks.loading import load
from blocks.manifest import LATEST, MESSAGES
from blocks.reading import newest_manifests, read_manifest
from tasks.policies import READ
from tasks.register import expire
from tasks.staging import STAGING


class Cleaned(BaseModel):
    """How many files, in staging folders, were removed, and how many unfinished uploads aborted."""

    model_config = ConfigDict(frozen=True)

    staged: int = 0
    drafts: int = 0
    messages: int = 0
    uploads: int = 0


@task(**READ)
def clean_lake(lake: str, days: float) -> Cleaned:
    """Removes what was left for longer than `days` by flow runs that were never retried, and files
    of runs that have been written again since. What a newest manifest names is never touched.
    """
    files = load(DataLake, lake).files
    before = files.now() - timedelta(days=days)
    cleaned = Cleaned(
        drafts=_remove(files, _drafts(files, before)),
        staged=_remove(files, _dead(files, before)),
        messages=_remove(files, _not_needed(files, before)),
        uploads=files.abort_uploads(before),
    )
    get_run_logger().info("Removed from %s: %s", files.root, cleaned)
    return cleaned


def _dead(files: Files, before: datetime) -> list[str]:
    """The staging folders nothing was written to lately and that no open refresh needs."""
    newest: dict[str, datetime] = {}
    for path, written in files.below(STAGING):
        folder = "/".join(path.split("/")[:2])
        newest[folder] = max(written, newest.get(folder, written))
    return expire(files, [folder for folder, written in newest.items() if written < before])


def _drafts(files: Files, before: datetime) -> list[str]:
    return [
        path
        for path, written in files.below("")
        if written < before and _name(path).startswith(DRAFT)
    ]


def _not_needed(files: Files, before: datetime) -> list[str]:
    """Old files of runs that no newest manifest names."""
    everything = list(files.below(MESSAGES))
    needed = set(newest_manifests(path for path, _ in everything))
    for path in list(needed):
        folder = path.rpartition("/")[0]
        needed |= {f"{folder}/{part.name}" for part in read_manifest(files, path).parts}
    return [
        path
        for path, written in everything
        if written < before
        and path not in needed
        and _name(path) != LATEST
        and "/_delta_log/" not in path
    ]


def _name(path: str) -> str:
    return path.rpartition("/")[2]


def _remove(files: Files, paths: list[str]) -> int:
    for path in paths:
        files.remove(path)
    return len(paths)

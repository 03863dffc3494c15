"""The nightly look at the lake: whether its runs still are what was written."""

from concurrent.futures import ThreadPoolExecutor
from random import shuffle
from time import monotonic

from prefect import task
from prefect.logging import get_run_logger

from blocks import DataLake
from blocks.storage.files import Files
from blocks.storage.manifest import MESSAGES, Manifest, Part, run_folder
from blocks.storage.reader import (
    ManifestDamaged,
    PartChanged,
    check_part,
    find_manifest,
    read_manifests,
    select_newest_manifests,
)
from nudgescribe.errors import NudgeflowError, first_ten
from tasks.policies import RETRIED

AT_ONCE = 4
SECONDS = 1800.0
"""For reading. Of a larger lake each look reads other files, so that all have their turn."""


class RunsDamaged(NudgeflowError):
    """Files of runs are missing in the lake, or are not what their manifests say."""

    advice = (
        "Restore them from a backup, or export their runs again with rewrite. All other files are "
        "as they were written."
    )


@task(**RETRIED, task_run_name="look at the runs in {lake.block_name}")
def look_at_runs(lake: DataLake) -> None:
    """Check that the files of all runs are there, and read as many as there is time for.

    Raises RunsDamaged, which names files; all are logged.
    """
    files = lake.files
    sizes = {file.path: file.bytes for file in files.list_files(MESSAGES)}
    manifests = read_manifests(files, select_newest_manifests(sizes))
    damage = {
        path: error.problem
        for path, error in manifests.items()
        if isinstance(error, ManifestDamaged)
    }
    readable = (one for one in manifests.values() if isinstance(one, Manifest))
    parts = [(manifest, part) for manifest in readable for part in manifest.parts]
    damage |= _damaged_parts(files, parts, sizes)
    for problem in damage.values():
        get_run_logger().error("%s", problem)
    if damage:
        raise RunsDamaged(f"{len(damage):,} files of runs are damaged: {first_ten(damage)}.")


def _damaged_parts(
    files: Files, parts: list[tuple[Manifest, Part]], sizes: dict[str, int]
) -> dict[str, str]:
    """Return what is wrong, by the paths of the files; `sizes` are those of all that are there."""
    end = monotonic() + SECONDS

    def check(one: tuple[Manifest, Part]) -> tuple[str, str] | None:
        manifest, part = one
        folder = run_folder(manifest.campaign_id, manifest.run_number)
        path = f"{folder}/{part.name}"
        try:
            if sizes.get(path) != part.bytes or monotonic() < end:
                check_part(files, folder, part)
        except PartChanged as error:
            # A run may have been removed or written again meanwhile.
            if find_manifest(files, manifest.campaign_id, manifest.run_number) == manifest:
                return path, error.problem
        return None

    shuffle(parts)
    with ThreadPoolExecutor(AT_ONCE) as threads:
        return dict(sorted(filter(None, threads.map(check, parts))))

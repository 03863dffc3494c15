"""One service, one Prefect server and one zygote for all points."""

import json
import os
from collections.abc import Callable, Iterator
from contextlib import suppress
from pathlib import Path
from typing import get_args
from uuid import uuid4

import pytest

from sandbox import seed
from tests.chaos.points import Group, Watched
from tests.chaos.proof import done_once
from tests.chaos.rig import Service, Story, Zygote, serving
from tests.conftest import Company
from tests.support.prefect_servers import PrefectServer, known


@pytest.fixture(scope="session")
def service(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Service]:
    with serving(tmp_path_factory.mktemp("service")) as service:
        yield service


@pytest.fixture(scope="session")
def server(tmp_path_factory: pytest.TempPathFactory) -> Iterator[PrefectServer]:
    server = PrefectServer(tmp_path_factory.mktemp("prefect"))
    yield server
    server.kill()


@pytest.fixture
def prefect(server: PrefectServer) -> Iterator[PrefectServer]:
    """Known to this process while the test lasts: it may run other tests in between, which have
    servers of their own.
    """
    with known(server):
        yield server


@pytest.fixture(scope="session")
def zygote(server: PrefectServer, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Zygote]:
    zygote = Zygote(server, tmp_path_factory.mktemp("zygote"))
    yield zygote
    zygote.close()


@pytest.fixture(scope="session")
def watched(
    service: Service,
    server: PrefectServer,
    zygote: Zygote,
    tmp_path_factory: pytest.TempPathFactory,
) -> Watched:
    """What undisturbed refreshes do, the same for all of xdist's workers."""
    folder = tmp_path_factory.mktemp("watched")
    watched: Watched = {}
    with known(server):
        for group in get_args(Group):
            while group not in watched:
                story = _story(service, zygote, folder / str(uuid4()))
                outcome = story.run(group)
                assert outcome.code == 0, story.log.read_text()
                done_once(story)
                # Pages of an export that still grew are fetched again, which is not always so.
                if not any(name.startswith("check_export: remove") for name in outcome.seen):
                    watched[group] = outcome.seen
    if "PYTEST_XDIST_WORKER" not in os.environ:
        return watched
    (mine := folder / "seen").write_text(json.dumps(watched))
    first = tmp_path_factory.getbasetemp().parent / "seen"
    with suppress(FileExistsError):
        os.link(mine, first)
    return json.loads(first.read_text())


@pytest.fixture
def story_of(
    service: Service, prefect: PrefectServer, zygote: Zygote, tmp_path: Path
) -> Iterator[Callable[[str], Story]]:
    """A fresh company, whose things are in a folder of this name. What its flow runs have said is
    shown unless they have been found to have ended well.
    """
    stories: list[Story] = []

    def new(name: str) -> Story:
        stories.append(_story(service, zygote, tmp_path / name))
        return stories[-1]

    yield new
    for story in stories:
        if not story.proven and story.log.exists():
            print(f"---- {story.folder.name}", story.log.read_text(), sep="\n")


def _story(service: Service, zygote: Zygote, folder: Path) -> Story:
    seeded = seed.seed(service.sandbox.context, 200)
    return Story(Company(service.sandbox, seeded), folder, zygote)

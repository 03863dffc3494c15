"""`deployments/compose.yaml`: valid, pinned, without a secret, for this machine only."""

import json
import re
from pathlib import Path
from typing import Any

import jsonschema_rs
import pytest
import yaml

from tests.support.prefect_servers import COMPOSE, ROOT, VARIABLES, services

SCHEMA = Path(__file__).parent / "schemas/compose-spec.json"
SERVICES = services(COMPOSE.read_text())
OURS = {"migrate", "server", "services", "bootstrap", "deploy", "worker", "sandbox", "seed"}


def every(kind: str) -> dict[str, Any]:
    return {name: each[kind] for name, each in SERVICES.items() if kind in each}


def test_compose_file_is_valid() -> None:
    validator = jsonschema_rs.validator_for(json.loads(SCHEMA.read_text()))
    given = yaml.safe_load(COMPOSE.read_text())
    assert [error.message for error in validator.iter_errors(given)] == []
    given["services"]["server"]["port"] = "4200:4200"
    assert not validator.is_valid(given)


def test_image_is_pinned_or_built_here() -> None:
    images = every("image")
    assert images.keys() == SERVICES.keys()
    for name in SERVICES.keys() - OURS:
        assert re.fullmatch(r"[a-z]+:\d+\.\d+(\.\d+)?-[a-z]+", images[name])
    built = {SERVICES[name]["image"] for name in every("build")}
    assert {images[name] for name in OURS} == built


@pytest.mark.parametrize("build", every("build").values(), ids=every("build"))
def test_image_built_here_is_a_stage_of_the_dockerfile(build: dict[str, str]) -> None:
    context = (COMPOSE.parent / build["context"]).resolve()
    assert context == ROOT
    stages = re.findall(r"^FROM .* AS (\S+)$", (context / build["dockerfile"]).read_text(), re.M)
    assert build["target"] in stages


def test_secret_is_a_variable_without_default() -> None:
    text = COMPOSE.read_text()
    used = set(re.findall(r"\$\{(\w+)", text))
    assert used == set(VARIABLES)
    for variable in VARIABLES:
        first, *_ = re.findall(rf"\${{{variable}(.*?)}}", text)
        assert first.startswith(":?"), variable
        assert f"${{{variable}:-" not in text
    # What is called a password, wherever it stands, is a variable.
    for name, value in re.findall(r"^ *(\w*(?:PASSWORD|AUTH|KEY|CODE)\w*): (.+)$", text, re.M):
        assert "${" in value or value.startswith("*"), name


def test_port_is_open_to_this_machine_only() -> None:
    ports = [port for given in every("ports").values() for port in given]
    assert ports
    assert all(port.startswith("127.0.0.1:") for port in ports)


def test_service_waits_for_what_can_be_waited_for() -> None:
    for waiting in every("depends_on").values():
        for name, wait in waiting.items():
            healthy = wait["condition"] == "service_healthy"
            assert healthy == ("healthcheck" in SERVICES[name])


def test_what_comes_to_an_end_is_not_started_again_when_it_has() -> None:
    stays = {name for name, restart in every("restart").items() if restart == "unless-stopped"}
    assert stays == every("healthcheck").keys()


def test_container_of_ours_changes_nothing_but_volumes_and_temporary_files() -> None:
    for name in OURS:
        service = SERVICES[name]
        assert service["read_only"], name
        assert (service["cap_drop"], service["security_opt"]) == (["ALL"], ["no-new-privileges"])
        temporary = [each for each in service.get("volumes", []) if each.endswith(":/tmp")]
        assert bool(temporary) != ("/tmp" in service["tmpfs"]), name


def test_memory_of_every_container_is_limited() -> None:
    assert every("mem_limit").keys() == SERVICES.keys()


def test_sandbox_starts_only_with_its_profile() -> None:
    assert every("profiles") == {"sandbox": ["sandbox"], "seed": ["seed"]}
    assert all("sandbox" not in waiting for waiting in every("depends_on").values())


def test_volumes_are_named() -> None:
    named = {volume.partition(":")[0] for given in every("volumes").values() for volume in given}
    assert named == yaml.safe_load(COMPOSE.read_text())["volumes"].keys()

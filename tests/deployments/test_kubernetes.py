"""Jobs are made from our template by the worker's own code, and are what Kubernetes takes."""

import asyncio
import json
import re
from copy import deepcopy
from pathlib import Path
from typing import Any
from uuid import uuid4

import jsonschema_rs
import kubernetes_validate
import pytest
import yaml
from prefect.client.orchestration import PrefectClient
from prefect.client.schemas.objects import FlowRun
from prefect.utilities.templating import find_placeholders
from prefect_kubernetes.settings import KubernetesSettings
from prefect_kubernetes.worker import KubernetesWorker, KubernetesWorkerJobConfiguration

from tests.support.prefect_servers import COMPOSE, services

HERE = Path(__file__).parent
DEPLOYMENTS = HERE.parents[1] / "deployments"
KUBERNETES = DEPLOYMENTS / "kubernetes"
TEMPLATE: dict[str, Any] = json.loads((KUBERNETES / "base-job-template.json").read_text())


def values(chart: str) -> dict[str, Any]:
    return yaml.safe_load((KUBERNETES / f"{chart}-values.yaml").read_text())


def job(**variables: Any) -> dict[str, Any]:
    """The manifest that the worker would send for a flow run."""
    # It would be asked for blocks that the template names, and Prefect starts a server otherwise.
    client = PrefectClient("http://127.0.0.1:9/api")
    configuration = asyncio.run(
        KubernetesWorkerJobConfiguration.from_template_and_values(
            deepcopy(TEMPLATE), variables, client=client
        )
    )
    configuration.prepare_for_flow_run(FlowRun(flow_id=uuid4(), name="polite-heron"))
    return configuration.job_manifest


def container(manifest: dict[str, Any]) -> dict[str, Any]:
    (only,) = manifest["spec"]["template"]["spec"]["containers"]
    return only


@pytest.mark.parametrize("version", ["1.30", kubernetes_validate.latest_version()])
def test_job_is_valid_for_kubernetes(version: str) -> None:
    manifest = job(image="registry.example.com/nudgeflow:1.2.3")
    # The worker insists on finding them here, too, where Kubernetes overlooks them.
    pod = manifest["spec"]["template"]["spec"]
    assert (pod.pop("parallelism"), pod.pop("completions")) == (1, 1)
    kubernetes_validate.validate(manifest, version, strict=True)


def test_job_runs_our_image_and_changes_only_its_temporary_files() -> None:
    manifest = job(image="registry.example.com/nudgeflow:1.2.3", temporary_size="40Gi")
    pod, there = manifest["spec"]["template"]["spec"], container(manifest)
    assert there["image"] == "registry.example.com/nudgeflow:1.2.3"
    assert there["args"] == ["prefect", "flow-run", "execute"]
    assert "command" not in there
    dockerfile = (DEPLOYMENTS / "Dockerfile").read_text()
    (user,) = re.findall(r"^USER (\d+):\d+$", dockerfile, re.MULTILINE)
    assert pod["securityContext"]["runAsUser"] == int(user)
    assert pod["securityContext"]["runAsNonRoot"] is True
    assert pod["automountServiceAccountToken"] is False
    assert there["securityContext"]["readOnlyRootFilesystem"] is True
    assert there["securityContext"]["capabilities"] == {"drop": ["ALL"]}
    places = {one["name"]: one["mountPath"] for one in there["volumeMounts"]}
    assert places == {"temporary": "/tmp"}
    assert pod["volumes"][0] == {"name": "temporary", "emptyDir": {"sizeLimit": "40Gi"}}
    assert there["resources"]["requests"]["ephemeral-storage"] == "40Gi"


def test_job_that_is_stopped_is_run_again_by_prefect() -> None:
    manifest = job(env_secret="keys")
    assert manifest["spec"]["backoffLimit"] == 0
    assert manifest["spec"]["ttlSecondsAfterFinished"] == 3600
    assert manifest["spec"]["template"]["spec"]["terminationGracePeriodSeconds"] == 60
    variables = {one["name"]: one["value"] for one in container(manifest)["env"]}
    assert variables["PREFECT_FLOW_RUN_EXECUTE_SIGTERM_BEHAVIOR"] == "reschedule"
    # A secret of more variables may be missing.
    (source,) = container(manifest)["envFrom"]
    assert source == {"secretRef": {"name": "keys", "optional": True}}


def test_variable_of_the_template_is_used_and_has_an_allowed_default() -> None:
    variables = TEMPLATE["variables"]
    used = {one.name for one in find_placeholders(TEMPLATE["job_configuration"])}
    assert used == set(variables["properties"])
    defaults = {name: one.get("default") for name, one in variables["properties"].items()}
    given = {name: default for name, default in defaults.items() if default is not None}
    jsonschema_rs.validator_for(variables).validate(given)


def test_template_has_all_of_prefects_own() -> None:
    own = KubernetesWorker.get_default_base_job_template()
    assert set(own["variables"]["properties"]) <= set(TEMPLATE["variables"]["properties"])
    assert set(own["job_configuration"]) == set(TEMPLATE["job_configuration"])


@pytest.mark.parametrize("chart", ["server", "worker"])
def test_chart_values_fit_its_schema_and_hold_no_secret(chart: str) -> None:
    schema = json.loads((HERE / f"schemas/prefect-{chart}-values.json").read_text())
    jsonschema_rs.validator_for(schema).validate(values(chart))
    text = (KUBERNETES / f"{chart}-values.yaml").read_text()
    assert not re.search(r"(?i)password:|authString|://\w+:\w+@", text)


def test_server_is_set_up_as_in_compose() -> None:
    there = services(COMPOSE.read_text())["services"]["environment"]
    here = {one["name"]: one.get("value") for one in values("server")["global"]["prefect"]["env"]}
    # The chart sets the first two, our values the third, the image the last.
    elsewhere = {
        "PREFECT_SERVER_API_AUTH_STRING",
        "PREFECT_SERVER_DATABASE_CONNECTION_URL",
        "PREFECT_SERVER_DATABASE_MIGRATE_ON_START",
        "DO_NOT_TRACK",
    }
    assert set(here) == set(there) - elsewhere
    plain = {name: value for name, value in here.items() if value is not None}
    assert plain.items() <= there.items()


def test_worker_keeps_the_password_out_of_jobs(monkeypatch: pytest.MonkeyPatch) -> None:
    given = values("worker")["worker"]
    for variable in given["extraEnvVars"]:
        monkeypatch.setenv(variable["name"], variable.get("value", "nudgeflow"))
    settings = KubernetesSettings()
    secret = given["selfHostedServerApiConfig"]["basicAuth"]["existingSecret"]
    assert settings.worker.api_auth_string_secret_name == secret
    assert settings.worker.api_auth_string_secret_key == "auth-string"
    assert settings.observer.namespaces == {"nudgeflow"}

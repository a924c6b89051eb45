"""The files of `deploy/` agree with each other and with the rest."""

from __future__ import annotations

import json
import re
import tomllib
from typing import Any

import yaml

from planloom.planner.contract.settings import VARIABLES, Settings
from tests.docs.pages import CHECKOUT

DEPLOY = CHECKOUT / "deploy"
KNOWN = {
    *VARIABLES,
    "PLANLOOM_TOOLS",
    "PLANLOOM_CONFIG",
    "PLANLOOM_LOG",
    "PLANLOOM_METRICS_ADDRESS",
    "PLANLOOM_HEALTH_ADDRESS",
}
PROBES = {"startup": "/live", "liveness": "/live", "readiness": "/ready"}


def _kubernetes() -> dict[str, Any]:
    documents = yaml.safe_load_all((DEPLOY / "kubernetes.yaml").read_text(encoding="utf-8"))
    return {each["kind"]: each for each in documents}


def test_the_servers_settings_are_those_of_the_development_server() -> None:
    wanted = yaml.safe_load((CHECKOUT / "temporal-dev.yaml").read_text("utf-8"))["dynamic_config"]
    served = yaml.safe_load((DEPLOY / "dynamicconfig.yaml").read_text(encoding="utf-8"))
    assert {name: values[0]["value"] for name, values in served.items()} == wanted


def test_the_settings_file_of_the_kubernetes_example_can_be_used() -> None:
    found = _kubernetes()
    Settings.model_validate(tomllib.loads(found["ConfigMap"]["data"]["planloom.toml"]))
    pod = found["Deployment"]["spec"]["template"]
    assert found["Deployment"]["spec"]["selector"]["matchLabels"] == pod["metadata"]["labels"]
    (container,) = pod["spec"]["containers"]
    mounted = {mount["name"] for mount in container["volumeMounts"]}
    assert mounted == {volume["name"] for volume in pod["spec"]["volumes"]}


def test_probes_ask_for_pages_that_a_worker_serves_where_it_serves_them() -> None:
    (container,) = _kubernetes()["Deployment"]["spec"]["template"]["spec"]["containers"]
    probes = {name: container[f"{name}Probe"]["httpGet"] for name in PROBES}
    assert {name: probe["path"] for name, probe in probes.items()} == PROBES
    ports = {port["name"]: port["containerPort"] for port in container["ports"]}
    variables = {each["name"]: each.get("value") for each in container["env"]}
    served = variables["PLANLOOM_HEALTH_ADDRESS"].rpartition(":")[2]
    assert {ports[probe["port"]] for probe in probes.values()} == {int(served)}
    compose = yaml.safe_load((DEPLOY / "compose.yaml").read_text("utf-8"))["services"]["worker"]
    address = compose["environment"]["PLANLOOM_HEALTH_ADDRESS"]
    assert f"http://{address}/ready" in compose["healthcheck"]["test"][-1]


def test_every_variable_that_the_files_set_is_read() -> None:
    for file in DEPLOY.iterdir():
        named = set(re.findall(r"\bPLANLOOM_[A-Z_]+\b", file.read_text(encoding="utf-8")))
        assert named <= KNOWN, file.name


def test_no_key_is_written_into_a_file() -> None:
    compose = yaml.safe_load((DEPLOY / "compose.yaml").read_text(encoding="utf-8"))
    assert compose["services"]["worker"]["environment"]["OPENAI_API_KEY"] == "${OPENAI_API_KEY:-}"
    (container,) = _kubernetes()["Deployment"]["spec"]["template"]["spec"]["containers"]
    keys = [each for each in container["env"] if each["name"].endswith("_API_KEY")]
    assert keys
    assert all("secretKeyRef" in each["valueFrom"] for each in keys)


def test_the_image_copies_only_what_is_there_and_starts_a_program_of_the_package() -> None:
    text = (DEPLOY / "Dockerfile").read_text(encoding="utf-8")
    for names in re.findall(r"^COPY (?!--from)(.+) \S+$", text, re.M):
        assert all((CHECKOUT / name).exists() for name in names.split())
    (program,) = json.loads(re.findall(r"^ENTRYPOINT (.+)$", text, re.M)[0])
    project = tomllib.loads((CHECKOUT / "pyproject.toml").read_text(encoding="utf-8"))["project"]
    assert program in project["scripts"]
    assert re.search(r"^USER \d+$", text, re.M), "a user by number, for runAsNonRoot"
    ignored = (CHECKOUT / ".dockerignore").read_text(encoding="utf-8").split()
    assert not {"planner", "workflows", "activities", "console", "planloom"} & set(ignored)

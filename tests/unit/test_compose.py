"""docker-compose.yml: what can be told of it without a container."""

from __future__ import annotations

import re
import subprocess
from pathlib import Path
from typing import Any

import pytest
import yaml

ROOT = Path(__file__).parents[2]
TEXT = (ROOT / "docker-compose.yml").read_text(encoding="utf-8")
SERVICES: dict[str, dict[str, Any]] = yaml.safe_load(TEXT)["services"]
COMMANDS = {
    "apiserver": ["airflow", "api-server"],
    "scheduler": ["airflow", "scheduler"],
    "dag-processor": ["airflow", "dag-processor"],
    "triggerer": ["airflow", "triggerer"],
    "worker": ["airflow", "celery", "worker"],
}
"""What tests/airflow/test_celery.py starts: it reads the commands from the file."""


def test_every_service_of_airflow_runs_the_command_that_the_celery_test_runs() -> None:
    found = {name: service["command"] for name, service in SERVICES.items() if "airflow" in service.get("command", [])}
    assert found == COMMANDS


@pytest.mark.parametrize("name", [name for name in SERVICES if name != "init"])
def test_every_service_says_whether_it_is_well_and_is_started_again(name: str) -> None:
    assert SERVICES[name]["healthcheck"]["test"]
    assert SERVICES[name]["restart"] == "unless-stopped"


def test_every_secret_is_asked_for_and_none_is_written_down() -> None:
    asked = set(re.findall(r"\$\{(\w+)", TEXT))
    given = dict(line.split("=", 1) for line in (ROOT / ".env.example").read_text().splitlines() if "=" in line[:30])
    assert asked == set(given)
    assert not any(given.values())
    environment = SERVICES["worker"]["environment"]
    secret = {name: value for name, value in environment.items() if re.search("SECRET|TOKEN|KEY$|PASSWORD", name)}
    assert secret and all(str(value).startswith("${") for value in secret.values()), secret
    assert not re.search(r"://[^/\s:]+:(?!\$\{)[^@\s]+@", TEXT), "an address with a password"


def test_an_image_is_pinned_and_nothing_runs_as_root() -> None:
    assert all(":" in service["image"] for service in SERVICES.values() if "image" in service)
    assert re.search(r"^USER fedsync$", (ROOT / "Dockerfile").read_text(), re.MULTILINE)


def test_what_a_service_waits_for_can_become_healthy() -> None:
    for service in SERVICES.values():
        for other, wanted in service.get("depends_on", {}).items():
            if wanted["condition"] == "service_healthy":
                assert "healthcheck" in SERVICES[other], other


def test_every_volume_is_declared() -> None:
    named = {mount.split(":")[0] for service in SERVICES.values() for mount in service.get("volumes", [])}
    assert named == set(yaml.safe_load(TEXT)["volumes"])


def test_the_script_of_the_first_start_can_be_read_by_a_shell() -> None:
    subprocess.run(["bash", "-n", ROOT / "examples/beijing/init.sh"], check=True)


def test_the_values_for_kubernetes_hold_no_secret_and_need_no_shared_disk() -> None:
    values = yaml.safe_load((ROOT / "deploy/helm-values.yaml").read_text(encoding="utf-8"))
    assert values["executor"] == "CeleryExecutor"
    assert values["workers"]["persistence"]["enabled"] is False
    assert values["dags"]["gitSync"]["enabled"] is values["dags"]["persistence"]["enabled"] is False
    secret = {one["envName"] for one in values["secret"]}
    assert {"FEDSYNC_LEDGER", "FEDSYNC_SECRET", "STORAGE_KEY", "STORAGE_SECRET"} <= secret
    assert not {one["name"] for one in values["env"]} & secret

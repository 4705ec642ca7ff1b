"""What tools of Kubernetes say of deploy/kubernetes, where they are to be had."""

import json
import shutil
import subprocess
from pathlib import Path
from typing import Final

import pytest
import yaml

from tests.deploy.test_kubernetes import BASE, named, resources

#: The resources of the Prometheus operator, as classes that validate themselves.
MODELS: Final = "@kubernetes-models/prometheus-operator"
VALIDATE: Final = f"""
import("{MODELS}/monitoring.coreos.com/v1").then(({{ ServiceMonitor }}) =>
  new ServiceMonitor(JSON.parse(require("fs").readFileSync(0))).validate());
"""


def run(*command: str, folder: Path, entered: str = "") -> subprocess.CompletedProcess[str]:
    """Run a tool of the machine, or skip where there is none."""
    if shutil.which(command[0]) is None:
        pytest.skip(f"no {command[0]}")
    return subprocess.run(
        command, cwd=folder, input=entered, capture_output=True, text=True, timeout=100, check=False
    )


def test_kustomize_builds_the_base() -> None:
    """Every resource, with the version of the images filled in."""
    done = run("kubectl", "kustomize", ".", folder=BASE)

    assert done.returncode == 0, done.stderr
    built = list(yaml.safe_load_all(done.stdout))
    assert {(r["kind"], r["metadata"]["name"]) for r in built} == {
        (r["kind"], r["metadata"]["name"]) for r in resources()
    }
    assert "image: celery-outbox/relay:0.1.0" in done.stdout
    assert "image: celery-outbox/migrate:0.1.0" in done.stdout


@pytest.fixture
def models(tmp_path: Path) -> Path:
    """A folder with the operator's models."""
    options = ("--no-audit", "--no-fund", "--ignore-scripts")
    done = run("npm", "install", *options, f"{MODELS}@6.0.0", folder=tmp_path)
    if done.returncode != 0:
        pytest.skip(f"{MODELS} is not to be had: {done.stderr.strip().splitlines()[-1]}")
    return tmp_path


def test_the_operator_takes_the_monitor(models: Path) -> None:
    """By its own schema, which would not take just anything."""
    monitor = named("ServiceMonitor")
    done = run("node", "-e", VALIDATE, folder=models, entered=json.dumps(monitor))
    assert done.returncode == 0, done.stderr

    monitor["spec"]["endpoints"][0]["interval"] = 15
    done = run("node", "-e", VALIDATE, folder=models, entered=json.dumps(monitor))
    assert done.returncode != 0

"""The console's resources are valid, fit the relay's base, and ask for no rights."""

from typing import Any

import kubernetes_validate  # type: ignore[import-untyped]  # it ships no types
import pytest
import yaml

from outbox_console import settings
from tests.deploy.board import ROOT
from tests.deploy.test_kubernetes import VERSIONS

FOLDER = ROOT / "deploy/kubernetes/console"


def resources() -> list[dict[str, Any]]:
    """What the kustomization lists."""
    base = yaml.safe_load((FOLDER / "kustomization.yaml").read_text())
    assert {*base["resources"], "kustomization.yaml"} == {file.name for file in FOLDER.iterdir()}
    files = [(FOLDER / name).read_text() for name in base["resources"]]
    return [resource for file in files for resource in yaml.safe_load_all(file)]


def pod() -> dict[str, Any]:
    """What runs."""
    (found,) = (each for each in resources() if each["kind"] == "Deployment")
    return dict(found["spec"]["template"]["spec"])


@pytest.mark.parametrize("version", VERSIONS)
def test_every_resource_is_valid(version: str) -> None:
    """By Kubernetes' own schemas."""
    for resource in resources():
        kubernetes_validate.validate(resource, version, strict=True)


def test_it_has_no_rights() -> None:
    """Nobody's user, a root that cannot be written, no capability, no token of the cluster."""
    (container,) = pod()["containers"]

    assert pod()["securityContext"]["runAsNonRoot"] is True
    assert pod()["automountServiceAccountToken"] is False
    assert container["securityContext"] == {
        "allowPrivilegeEscalation": False,
        "readOnlyRootFilesystem": True,
        "capabilities": {"drop": ["ALL"]},
    }


def test_its_settings_are_understood() -> None:
    """And let it listen for others, as there are people who sign in."""
    (container,) = pod()["containers"]
    given = {each["name"]: each["value"] for each in container["env"]}
    given["OUTBOX_CONSOLE_ADDRESS"] = "0.0.0.0:9465"  # the image's

    read = settings.read(given)

    assert read.knows_people
    assert read.relay_metrics == ("http://outbox-relay:9464/metrics",)
    assert read.doctor.endswith("outbox-relay doctor --json")


def test_what_it_reads_is_mounted() -> None:
    """Each file of a setting is a key of a secret."""
    (container,) = pod()["containers"]
    folders = {each["name"]: each["mountPath"] for each in container["volumeMounts"]}
    mounted = {
        f"{folders[volume['name']]}/{item['path']}"
        for volume in pod()["volumes"]
        for item in volume["secret"]["items"]
    }
    words = " ".join(each["value"] for each in container["env"]).replace("=", " ").split()

    assert {word for word in words if word.startswith("/run/secrets")} == mounted

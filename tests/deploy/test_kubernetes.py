"""The resources in deploy/kubernetes are valid, fit one another, and ask for no rights.

No cluster is needed for that, and none was there: admission and scheduling are not proven here.
"""

from collections.abc import Iterator
from typing import Any

import kubernetes_validate  # type: ignore[import-untyped]  # it ships no types
import pytest
import yaml

from tests.deploy.board import ROOT

BASE = ROOT / "deploy/kubernetes"
#: The oldest and the newest version that the resources are for.
VERSIONS = ("1.30", "1.37")
#: Of the Prometheus operator; `make test-deploy` asks its own schema.
FOREIGN = {"ServiceMonitor"}


def resources() -> list[dict[str, Any]]:
    """What the kustomization lists, in its order."""
    base = yaml.safe_load((BASE / "kustomization.yaml").read_text())
    files = [(BASE / name).read_text() for name in base["resources"]]
    return [resource for file in files for resource in yaml.safe_load_all(file)]


def named(kind: str, name: str = "outbox-relay") -> dict[str, Any]:
    """The one resource of that kind and name."""
    (found,) = (r for r in resources() if (r["kind"], r["metadata"]["name"]) == (kind, name))
    return dict(found)


def pods() -> Iterator[Any]:
    """The templates of everything that runs."""
    yield from (r["spec"]["template"] for r in resources() if r["kind"] in ("Deployment", "Job"))


def containers() -> Iterator[tuple[Any, Any]]:
    """Every container with the pod it is in."""
    for pod in pods():
        for container in (*pod["spec"].get("initContainers", ()), *pod["spec"]["containers"]):
            yield pod["spec"], container


def test_every_file_is_listed() -> None:
    """None is forgotten, and none is missing."""
    base = yaml.safe_load((BASE / "kustomization.yaml").read_text())

    assert {*base["resources"], "kustomization.yaml"} == {
        file.name for file in BASE.iterdir() if file.is_file()
    }


@pytest.mark.parametrize("version", VERSIONS)
def test_every_resource_is_valid(version: str) -> None:
    """By Kubernetes' own schemas, which know no field that is not theirs."""
    for resource in resources():
        if resource["kind"] not in FOREIGN:
            kubernetes_validate.validate(resource, version, strict=True)


def test_no_container_has_rights() -> None:
    """What the tests of the images prove from inside is what is asked for here."""
    for pod, container in containers():
        assert pod["securityContext"]["runAsNonRoot"] is True
        assert pod["securityContext"]["runAsUser"] >= 10000
        assert pod["securityContext"]["seccompProfile"] == {"type": "RuntimeDefault"}
        assert pod["automountServiceAccountToken"] is False
        assert container["securityContext"] == {
            "allowPrivilegeEscalation": False,
            "readOnlyRootFilesystem": True,
            "capabilities": {"drop": ["ALL"]},
        }
        assert set(container["resources"]) == {"requests", "limits"}


def test_secrets_are_files() -> None:
    """No variable holds one; each names a file that the volume has."""
    for pod, container in containers():
        (mount,) = container["volumeMounts"]
        (volume,) = pod["volumes"]
        files = {f"{mount['mountPath']}/{item['path']}" for item in volume["secret"]["items"]}
        assert mount["readOnly"] is True
        assert all(variable["name"].endswith("_FILE") for variable in container["env"])
        assert {variable["value"] for variable in container["env"]} == files


def test_no_service_brings_variables() -> None:
    """A relay refuses variables that are named like settings and are none."""
    assert all(pod["spec"]["enableServiceLinks"] is False for pod in pods())


def test_everything_selects_the_relay() -> None:
    """Service, budget, policy and monitor find the pods that the deployment makes."""
    label = {"app.kubernetes.io/name": "outbox-relay"}

    assert named("Deployment")["spec"]["selector"]["matchLabels"] == label
    assert named("Deployment")["spec"]["template"]["metadata"]["labels"] == label
    assert named("Service")["spec"]["selector"] == label
    assert named("PodDisruptionBudget")["spec"]["selector"]["matchLabels"] == label
    assert named("NetworkPolicy")["spec"]["podSelector"]["matchLabels"] == label
    assert named("ServiceMonitor")["spec"]["selector"]["matchLabels"] == label
    assert named("Service")["metadata"]["labels"] == label


def test_metrics_have_one_way_in() -> None:
    """Pod, service, monitor and policy call the port by one name."""
    (container,) = named("Deployment")["spec"]["template"]["spec"]["containers"]
    (port,) = container["ports"]
    (service,) = named("Service")["spec"]["ports"]
    (endpoint,) = named("ServiceMonitor")["spec"]["endpoints"]
    (way_in,) = named("NetworkPolicy")["spec"]["ingress"]

    assert port == {"name": "metrics", "containerPort": 9464}
    assert (service["name"], service["targetPort"]) == ("metrics", "metrics")
    assert endpoint["port"] == "metrics"
    assert way_in["ports"] == [{"protocol": "TCP", "port": "metrics"}]


def test_a_relay_is_given_its_grace() -> None:
    """Longer than OUTBOX_GRACE_PERIOD, which is 25 seconds."""
    assert named("Deployment")["spec"]["template"]["spec"]["terminationGracePeriodSeconds"] == 30


def test_an_update_stops_no_relay_before_another_is_ready() -> None:
    """And machines are emptied one relay at a time."""
    strategy = named("Deployment")["spec"]["strategy"]

    assert strategy["rollingUpdate"]["maxUnavailable"] == 0
    assert named("PodDisruptionBudget")["spec"]["maxUnavailable"] == 1
    assert named("Deployment")["spec"]["replicas"] >= 2

"""The images hold what the lock file names for them and no more, and say what they are."""

import json
from typing import Any

import pytest

from tests.containers.engine import docker, inspect
from tests.containers.stack import IMAGES, Stack

RELAY, MIGRATE = IMAGES["RELAY_IMAGE"], IMAGES["MIGRATE_IMAGE"]
#: What each adds to its base; measured 37 and 44 MB.
MEGABYTES = 50
#: Prints what is installed, as names and versions.
INSTALLED = (
    "import json; from importlib.metadata import distributions;"
    "print(json.dumps({d.name.lower().replace('_', '-'): d.version for d in"
    " distributions(path=[p for p in __import__('sys').path if p.startswith('/opt/')])}))"
)
#: Prints the list that was made from the lock file when the image was built.
SBOM = "print(open('/opt/outbox/sbom.cdx.json').read())"


def inside(image: str, program: str) -> Any:
    """Run a program in a new container and return the JSON it prints."""
    return json.loads(docker("run", "--rm", "--entrypoint=python", image, "-c", program))


@pytest.mark.parametrize(
    ("image", "own", "foreign"),
    [
        (RELAY, "outbox-relay", {"celery", "celery-outbox", "outbox-migrations", "sqlalchemy"}),
        (MIGRATE, "outbox-migrations", {"celery", "celery-outbox", "outbox-relay", "kombu"}),
    ],
    ids=["relay", "migrate"],
)
def test_the_bill_of_materials_is_what_is_installed(
    stack: Stack, image: str, own: str, foreign: set[str]
) -> None:
    """Name by name and version by version; nothing of another component, and no installer."""
    installed = inside(image, INSTALLED)
    listed = {part["name"]: part["version"] for part in inside(image, SBOM)["components"]}

    version = installed.pop(own)
    assert version
    assert installed == {name: listed[name] for name in installed}
    assert not set(installed) & (foreign | {"pip", "uv", "setuptools"})


@pytest.mark.parametrize("image", [RELAY, MIGRATE], ids=["relay", "migrate"])
def test_an_image_says_what_it_is(stack: Stack, image: str) -> None:
    """Labels, a user that is not root, and no shell in front of the program."""
    config = inspect(image)["Config"]

    labels = {key.rpartition(".")[2]: value for key, value in config["Labels"].items()}
    assert config["User"] == "10001:10001"
    assert config["Entrypoint"] == [labels["title"]]
    assert labels["licenses"] == "MIT"
    assert (labels["version"], labels["revision"]) == ("0.0.test", "under-test")


def test_the_relay_is_asked_for_its_health(stack: Stack) -> None:
    """By its own command, without a shell."""
    config = inspect(RELAY)["Config"]

    assert config["Healthcheck"]["Test"] == ["CMD", "outbox-relay", "health"]
    assert config["StopSignal"] == "SIGTERM"


@pytest.mark.parametrize("image", [RELAY, MIGRATE], ids=["relay", "migrate"])
def test_an_image_is_small(stack: Stack, image: str) -> None:
    """What it adds to its base; the layers of the base are shared with whatever else uses it."""
    history = docker("history", "--human=false", "--format={{.Size}} {{.CreatedBy}}", image)
    (ours,) = (line for line in history.splitlines() if "COPY /opt/outbox" in line)

    assert int(ours.split()[0]) < MEGABYTES * 1_000_000

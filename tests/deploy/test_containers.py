"""Dockerfiles and compose.yaml, as far as can be told without an engine."""

import re
from pathlib import Path
from typing import Any

import pytest
import yaml

from tests.deploy.board import ROOT

DOCKERFILES = sorted((ROOT / "deploy").glob("*.Dockerfile"))
OURS = ("migrate", "grant", "relay", "shop", "worker", "console")


def services() -> dict[str, Any]:
    """The services of the compose file."""
    text = (ROOT / "deploy/compose.yaml").read_text()
    return dict(yaml.safe_load(text)["services"])


@pytest.mark.parametrize("dockerfile", DOCKERFILES, ids=lambda file: file.stem)
def test_an_image_is_built_from_the_lock_file(dockerfile: Path) -> None:
    """Frozen, the rest without a network; no other installer, and no shell form of any command."""
    text = dockerfile.read_text()
    syncs = re.findall(r'uv", "sync", (.*)\]', text)

    assert all('"--frozen"' in sync for sync in syncs)
    assert '"--offline"' in syncs[-1]
    assert not re.search(r"\bpip\b|apt-get|curl|wget|\bADD\b", text)
    assert not re.search(r"(?m)^(RUN|CMD|ENTRYPOINT) +[^\[]", text)


@pytest.mark.parametrize("dockerfile", DOCKERFILES, ids=lambda file: file.stem)
def test_an_image_is_not_roots(dockerfile: Path) -> None:
    """A number that belongs to no user of the machine; the base is pinned and can be replaced."""
    text = dockerfile.read_text()

    (user, group) = re.findall(r"(?m)^USER (\d+):(\d+)$", text)[0]
    assert int(user) >= 10000
    assert int(group) >= 10000
    assert re.search(r"(?m)^ARG PYTHON_IMAGE=python:\d+\.\d+\.\d+-slim-\w+$", text)
    assert set(re.findall(r"(?m)^FROM (\S+)", text)) == {"${PYTHON_IMAGE}"}


@pytest.mark.parametrize("name", OURS)
def test_our_services_have_no_rights(name: str) -> None:
    """The same for each of them."""
    service = services()[name]

    assert service["read_only"] is True
    assert service["cap_drop"] == ["ALL"]
    assert service["security_opt"] == ["no-new-privileges:true"]
    assert "privileged" not in service
    assert "user" not in service  # the image's


def test_every_image_is_pinned_and_can_be_replaced() -> None:
    """`${NAME_IMAGE:-repository:version}`; ours are built here."""
    for name, service in services().items():
        version = "" if name in OURS else r":v?\d+\.\d+[\w.-]*"
        assert re.fullmatch(rf"\$\{{[A-Z]+_IMAGE:-[\w/-]+{version}\}}", service["image"]), name


def test_ports_are_open_on_loopback_alone() -> None:
    """And can be moved."""
    ports = [port for service in services().values() for port in service.get("ports", ())]

    assert ports
    assert all(re.fullmatch(r"127\.0\.0\.1:\$\{\w+_PORT:-\d+\}:\d+", port) for port in ports)


def test_every_file_that_is_mounted_is_there() -> None:
    """Docker would make a folder of one that is missing."""
    mounts = [each for service in services().values() for each in service.get("volumes", ())]
    files = [mount.split(":")[0] for mount in mounts if mount.startswith(".")]

    assert files
    assert [file for file in files if not (ROOT / "deploy" / file).exists()] == []

"""One stack of containers for all tests of this folder.

DOCKER=auto (the default) skips with the reason where no engine answers, or where an image is
neither there nor to be had; require fails instead; off skips.
"""

import json
import os
import re
from collections.abc import Callable, Iterator

import pytest

from tests.containers.engine import COMPOSE_FILE, EngineError, docker, fetch
from tests.containers.stack import Stack, running

FetchImage = Callable[[str], None]


@pytest.fixture(scope="session")
def fetch_image() -> FetchImage:
    """Have an image on the engine, or skip: ``fetch_image("postgres:17.11")``."""

    def fetch_or_skip(image: str) -> None:
        try:
            fetch(image)
        except EngineError as error:
            _skip(f"no image {image}: {_last_line(error)}", error)

    return fetch_or_skip


@pytest.fixture(scope="session")
def engine(fetch_image: FetchImage) -> None:
    """An engine that answers, with every image that ours are built from and run beside."""
    mode = _mode()
    if mode not in ("auto", "require", "off"):
        pytest.fail(f"DOCKER={mode}: use auto, require or off")
    if mode == "off":
        pytest.skip("DOCKER=off")
    try:
        docker("version", "--format={{.Server.Version}}", seconds=20)
        docker("compose", "version", seconds=20)
    except EngineError as error:
        _skip(f"no Docker engine with compose: {_last_line(error)}", error)
    for image in (_python_image(), image_of("postgres"), image_of("rabbitmq")):
        fetch_image(image)


@pytest.fixture(scope="session")
def stack(engine: None) -> Iterator[Stack]:
    """The whole path, up and healthy."""
    with running() as stack:
        yield stack


def image_of(service: str) -> str:
    """The image that compose.yaml names for a service, or the one that a variable puts there."""
    told = docker("compose", f"--file={COMPOSE_FILE}", "--profile=*", "config", "--format=json")
    return str(json.loads(told)["services"][service]["image"])


def _python_image() -> str:
    dockerfile = COMPOSE_FILE.with_name("relay.Dockerfile").read_text()
    pinned = re.findall(r"(?m)^ARG PYTHON_IMAGE=(\S+)$", dockerfile)[0]
    return os.environ.get("PYTHON_IMAGE") or pinned


def _mode() -> str:
    return os.environ.get("DOCKER") or "auto"


def _skip(reason: str, error: EngineError) -> None:
    if _mode() == "require":
        raise error
    pytest.skip(reason)


def _last_line(error: EngineError) -> str:
    return str(error).strip().splitlines()[-1]

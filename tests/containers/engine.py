"""Docker's command line: what the tests ask of an engine, of containers and of images."""

import json
import os
import subprocess
from collections.abc import Mapping
from pathlib import Path
from typing import Any, Final

ROOT: Final = Path(__file__).resolve().parents[2]
COMPOSE_FILE: Final = ROOT / "deploy/compose.yaml"
_SECONDS: Final = 240


class EngineError(Exception):
    """Permanent for a test: the engine refused a command; the message holds what it said."""


def docker(*arguments: str, env: Mapping[str, str] | None = None, seconds: float = _SECONDS) -> str:
    """Run a docker command and return what it prints."""
    try:
        done = subprocess.run(
            ["docker", *arguments],
            env={**os.environ, **(env or {})},
            capture_output=True,
            text=True,
            timeout=seconds,
            check=False,
        )
    except (OSError, subprocess.TimeoutExpired) as error:
        raise EngineError(f"docker {' '.join(arguments[:4])}: {error}") from error
    if done.returncode != 0:
        raise EngineError(
            f"docker {' '.join(arguments)}:\n{done.stdout[-4000:]}{done.stderr[-4000:]}"
        )
    return done.stdout


def inspect(thing: str) -> dict[str, Any]:
    """Everything the engine knows of a container or an image."""
    return dict(json.loads(docker("inspect", thing))[0])


def fetch(image: str) -> None:
    """Have an image on this engine: it is there, or a registry gives it."""
    try:
        docker("image", "inspect", image)
    except EngineError:
        docker("pull", "--quiet", image)


def crash(container: str, image: str) -> None:
    """SIGKILL a container's first process from outside, as the kernel would.

    Not `docker kill`: the engine takes that for a wish, and does not start the container again.
    """
    pid = inspect(container)["State"]["Pid"]
    program = f"import os; os.kill({pid}, 9)"
    docker("run", "--rm", "--pid=host", "--user=0", "--entrypoint=python", image, "-c", program)

"""RabbitMQ without root: the distribution's packages, verified by apt, unpacked in the checkout.

No maintainer script runs, so no broker appears on the machine, and nothing outside is written.
"""

import fcntl
import os
import shutil
import subprocess
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

from servers.errors import ServerMissing
from servers.folders import completed

_SERVER = "usr/lib/rabbitmq/bin/rabbitmq-server"
_CACHE = Path(__file__).resolve().parents[2] / ".servers"
_WAY_OUT = (
    "Install it (apt-get install rabbitmq-server), or do without: RABBITMQ=off for the tests, "
    "BROKER=redis for the demo."
)


def find_or_fetch() -> Path:
    """Return the root of an installation: the machine's, the unpacked one, or unpack it now."""
    for root in (Path("/"), _CACHE / "rabbitmq"):
        if os.access(root / _SERVER, os.X_OK):
            return root
    return fetch(_CACHE)


def fetch(cache: Path) -> Path:
    """Download and unpack RabbitMQ (about 40 MB) under a folder; whoever comes second waits."""
    if shutil.which("apt-get") is None:
        raise ServerMissing(f"RabbitMQ is not installed and there is no apt-get. {_WAY_OUT}")
    with _lock(cache):
        root = cache / "rabbitmq"
        if root.exists():
            return root
        try:
            with completed(root) as unfinished:
                _unpack(unfinished)
        except subprocess.CalledProcessError as error:
            raise ServerMissing(
                f"RabbitMQ could not be downloaded. {_WAY_OUT}\n"
                f"{' '.join(error.cmd)}\n{error.stdout}{error.stderr}"
            ) from error
        return root


@contextmanager
def _lock(cache: Path) -> Iterator[None]:
    try:
        cache.mkdir(exist_ok=True)
        file = (cache / "rabbitmq.lock").open("w")
    except OSError as error:
        raise ServerMissing(f"RabbitMQ cannot be unpacked: {error}. {_WAY_OUT}") from error
    with file:
        fcntl.flock(file, fcntl.LOCK_EX)
        yield


def _unpack(root: Path) -> None:
    downloads = root / "downloads"
    packages = downloads / "packages"
    for needed in (downloads / "lists/partial", downloads / "archives/partial", packages):
        needed.mkdir(parents=True)
    _apt(downloads, "apt-get", "update")
    _apt(downloads, "apt-get", "download", *_needed_packages(downloads), working_folder=packages)
    for package in packages.glob("*.deb"):
        _run(["dpkg", "-x", str(package), str(root)], downloads)
    shutil.rmtree(downloads)


def _needed_packages(folder: Path) -> list[str]:
    """Return RabbitMQ and Erlang; the libraries they use come with apt itself or with Python."""
    closure = _apt(
        folder,
        *("apt-cache", "depends", "--recurse", "--no-recommends", "--no-suggests"),
        *("--no-conflicts", "--no-breaks", "--no-replaces", "--no-enhances", "rabbitmq-server"),
    )
    # Package names stand at the start of a line; what they depend on is indented.
    return sorted({n for n in closure.splitlines() if n.startswith(("erlang-", "rabbitmq-"))})


def _apt(folder: Path, *command: str, working_folder: Path | None = None) -> str:
    """Run an apt command on lists and a cache of its own, with the machine's sources and keys."""
    options = {
        "Dir::State::lists": folder / "lists",
        "Dir::Cache": folder,
        "Dir::Log": folder,
        "Debug::NoLocking": 1,
        "APT::Sandbox::User": "",
        "Acquire::Languages": "none",
    }
    flags = [part for key, value in options.items() for part in ("-o", f"{key}={value}")]
    return _run([*command, "-q", *flags], working_folder or folder)


def _run(command: list[str], folder: Path) -> str:
    done = subprocess.run(command, cwd=folder, check=True, capture_output=True, text=True)
    return done.stdout

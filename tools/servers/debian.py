"""Servers without root: the distribution's packages, verified by apt, unpacked in the checkout.

No maintainer script runs, so no service appears on the machine, and nothing outside is written.
"""

import fcntl
import shutil
import subprocess
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Final

from servers.errors import ServerMissing
from servers.folders import completed

#: Where everything is unpacked; `make clean` removes it.
CACHE: Final = Path(__file__).resolve().parents[2] / ".servers"


@dataclass(frozen=True, slots=True)
class Bundle:
    """A package and those of its dependencies whose names begin with one of the prefixes.

    The libraries they use come with apt itself or with Python.
    """

    title: str
    package: str
    prefixes: tuple[str, ...]
    way_out: str

    @property
    def folder(self) -> str:
        """The name of the folder it is unpacked in."""
        return self.title.lower()


def fetch(cache: Path, bundle: Bundle) -> Path:
    """Download and unpack a bundle under a folder; whoever comes second waits."""
    if shutil.which("apt-get") is None:
        raise ServerMissing(
            f"{bundle.title} is not installed and there is no apt-get. {bundle.way_out}"
        )
    with _lock(cache, bundle):
        root = cache / bundle.folder
        if root.exists():
            return root
        try:
            with completed(root) as unfinished:
                _unpack(unfinished, bundle)
        except subprocess.CalledProcessError as error:
            raise ServerMissing(
                f"{bundle.title} could not be downloaded. {bundle.way_out}\n"
                f"{' '.join(error.cmd)}\n{error.stdout}{error.stderr}"
            ) from error
        return root


@contextmanager
def _lock(cache: Path, bundle: Bundle) -> Iterator[None]:
    try:
        cache.mkdir(exist_ok=True)
        file = (cache / f"{bundle.folder}.lock").open("w")
    except OSError as error:
        raise ServerMissing(
            f"{bundle.title} cannot be unpacked: {error}. {bundle.way_out}"
        ) from error
    with file:
        fcntl.flock(file, fcntl.LOCK_EX)
        yield


def _unpack(root: Path, bundle: Bundle) -> None:
    downloads = root / "downloads"
    packages = downloads / "packages"
    for needed in (downloads / "lists/partial", downloads / "archives/partial", packages):
        needed.mkdir(parents=True)
    _apt(downloads, "apt-get", "update")
    names = _needed_packages(downloads, bundle)
    _apt(downloads, "apt-get", "download", *names, working_folder=packages)
    for package in packages.glob("*.deb"):
        _run(["dpkg", "-x", str(package), str(root)], downloads)
    shutil.rmtree(downloads)


def _needed_packages(folder: Path, bundle: Bundle) -> list[str]:
    closure = _apt(
        folder,
        *("apt-cache", "depends", "--recurse", "--no-recommends", "--no-suggests"),
        *("--no-conflicts", "--no-breaks", "--no-replaces", "--no-enhances", bundle.package),
    )
    # Package names stand at the start of a line; what they depend on is indented.
    return sorted({n for n in closure.splitlines() if n.startswith(bundle.prefixes)})


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

"""Servers without root: Debian's packages, verified by apt, unpacked in the checkout.

No maintainer script runs, so no service appears on the machine, and nothing outside is written.
Packages of another Debian than the machine's bring the libraries they need (`relinked.py`).
"""

import fcntl
import os
import re
import shutil
import subprocess
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Final

from servers.errors import ServerMissing
from servers.folders import completed
from servers.relinked import relink

#: Where everything is unpacked; `make clean` removes it.
CACHE: Final = Path(__file__).resolve().parents[2] / ".servers"
#: Signs all of Debian's suites.
_KEYS: Final = "/usr/share/keyrings/debian-archive-keyring.gpg"
#: How the packages of libraries are called, libc's among them.
_LIBRARIES: Final = ("lib", "zlib1g")


@dataclass(frozen=True, slots=True)
class Bundle:
    """A package and those of its dependencies whose names begin with one of the prefixes.

    The libraries they use come with apt itself or with Python. Those of a named suite (`trixie`)
    come from there, with all their libraries, to which `programs` (folders or files) are linked.
    """

    title: str
    package: str
    prefixes: tuple[str, ...]
    way_out: str
    suite: str | None = None
    programs: tuple[str, ...] = ()

    @property
    def folder(self) -> str:
        """The name of the folder it is unpacked in."""
        return self.title.lower() + (f"-{self.suite}" if self.suite else "")


def fetch(cache: Path, bundle: Bundle) -> Path:
    """Download and unpack a bundle under a folder; whoever comes second waits."""
    if shutil.which("apt-get") is None:
        raise ServerMissing(
            f"{bundle.title} is not installed and there is no apt-get. {bundle.way_out}"
        )
    with _lock(cache, bundle):
        root = cache / bundle.folder
        try:
            if not root.exists():
                with completed(root) as unfinished:
                    _unpack(unfinished, bundle)
            if bundle.suite:
                relink(root, bundle.programs)
        except subprocess.CalledProcessError as error:
            raise ServerMissing(
                f"{bundle.title} could not be downloaded. {bundle.way_out}\n"
                f"{' '.join(error.cmd)}\n{error.stdout}{error.stderr}"
            ) from error
        return root


def environment(executable: Path) -> dict[str, str]:
    """The environment in which a program that was unpacked finds the libraries beside it."""
    folders = (executable.parents[1] / "lib").glob("*-linux-gnu")
    return {**os.environ, "LD_LIBRARY_PATH": ":".join(map(str, folders))}


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
    if bundle.suite:
        (downloads / "sources.list").write_text(_source(downloads, bundle))
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
    prefixes = bundle.prefixes + (_LIBRARIES if bundle.suite else ())
    return sorted({n for n in closure.splitlines() if n.startswith(prefixes)})


def _source(folder: Path, bundle: Bundle) -> str:
    """Return the line for apt that names a suite, of the mirror the machine gets its own from."""
    known = _apt(folder, "apt-get", "update", "--print-uris")
    if mirror := re.search(r"'(\S+/debian)/+dists/", known):
        return f"deb [signed-by={_KEYS}] {mirror[1]} {bundle.suite} main\n"
    raise ServerMissing(
        f"{bundle.title} of Debian's {bundle.suite}: this machine's apt knows no mirror of Debian. "
        f"{bundle.way_out}"
    )


def _apt(folder: Path, *command: str, working_folder: Path | None = None) -> str:
    """Run an apt command on lists and a cache of its own, with the machine's sources and keys.

    Where the folder has a sources.list, that alone counts, and so does nothing that is installed.
    """
    options = {
        "Dir::State::lists": folder / "lists",
        "Dir::Cache": folder,
        "Dir::Log": folder,
        "Debug::NoLocking": 1,
        "APT::Sandbox::User": "",
        "Acquire::Languages": "none",
    }
    if (own := folder / "sources.list").exists():
        options |= {
            "Dir::Etc::SourceList": own,
            "Dir::Etc::SourceParts": "/dev/null",
            "Dir::State::status": "/dev/null",
        }
    flags = [part for key, value in options.items() for part in ("-o", f"{key}={value}")]
    return _run([*command, "-q", *flags], working_folder or folder)


def _run(command: list[str], folder: Path) -> str:
    done = subprocess.run(command, cwd=folder, check=True, capture_output=True, text=True)
    return done.stdout

"""RabbitMQ without root: Debian's packages, of the release asked for or the newest that runs here.

RABBITMQ_VERSION chooses a release. Without it the newest is unpacked, and where that cannot be, one
line says why and the machine's own or its distribution's is used. RABBITMQ_ROOT names a root that
`python -m servers` found before.
"""

import os
import re
import subprocess
import sys
from functools import cache
from pathlib import Path
from typing import Final

from servers import debian
from servers.errors import ServerMissing

_SERVER: Final = "usr/lib/rabbitmq/bin/rabbitmq-server"
_WAY_OUT: Final = (
    "Install it (apt-get install rabbitmq-server), or do without: RABBITMQ=off for the "
    "tests, BROKER=redis for the demo."
)
_ERLANG: Final = "usr/lib/erlang"
_PREFIXES: Final = ("erlang-", "rabbitmq-")

#: RabbitMQ and Erlang as the machine's own distribution has them, about 40 MB.
BUNDLE: Final = debian.Bundle("RabbitMQ", "rabbitmq-server", _PREFIXES, _WAY_OUT)
#: Which of Debian's suites has which release; each about 45 MB with its libraries.
RELEASES: Final = {"3.10": "bookworm", "4.0": "trixie", "4.3": "sid"}
NEWEST: Final = "4.3"


def find_or_fetch() -> Path:
    """Return the root of an installation, unpacking it now where need be."""
    if root := os.environ.get("RABBITMQ_ROOT"):
        return Path(root)
    wanted = os.environ.get("RABBITMQ_VERSION")
    return release(wanted) if wanted else _newest_that_runs()


def release(wanted: str) -> Path:
    """Return the root of a release of RELEASES."""
    if wanted not in RELEASES:
        raise ServerMissing(
            f"RABBITMQ_VERSION={wanted}: use {', '.join(RELEASES)}, or none for the newest"
        )
    for root in (Path("/"), debian.CACHE / BUNDLE.folder):
        if is_installed(root) and version(root).startswith(f"{wanted}."):
            return root
    root = fetch(debian.CACHE, RELEASES[wanted])
    if not version(root).startswith(f"{wanted}."):
        raise ServerMissing(
            f"Debian's {RELEASES[wanted]} has RabbitMQ {version(root)} by now, no longer {wanted}: "
            "it is the newest, for which RABBITMQ_VERSION need not be set"
        )
    return root


def fetch(cache: Path, suite: str | None = None) -> Path:
    """Download and unpack RabbitMQ under a folder; whoever comes second waits."""
    programs = (_ERLANG,) if suite else ()
    root = debian.fetch(
        cache,
        debian.Bundle("RabbitMQ", "rabbitmq-server", _PREFIXES, _WAY_OUT, suite, programs),
    )
    _tell_its_place(root / _ERLANG)
    return root


def _tell_its_place(erlang: Path) -> None:
    """Have the unpacked `erl` find the rest: a node that joins a cluster starts others by it."""
    for script in (erlang / "bin/erl", *erlang.glob("erts-*/bin/erl")):
        text = script.read_text() if script.exists() else ""
        told = re.sub(r"(?m)^(\s*)ROOTDIR=/.*$", rf"\1ROOTDIR={erlang}", text)
        if told != text:
            mended = script.with_name(f"erl.{os.getpid()}")
            mended.write_text(told)
            mended.chmod(0o755)
            mended.rename(script)


def is_installed(root: Path) -> bool:
    """Whether there is a RabbitMQ below a root."""
    return os.access(root / _SERVER, os.X_OK)


def version(root: Path) -> str:
    """Return the version of an installation, such as 4.3.6."""
    server = next(root.glob("usr/lib/rabbitmq/lib/rabbitmq_server-*"))
    return server.name.partition("-")[2]


@cache
def _newest_that_runs() -> Path:
    try:
        root = fetch(debian.CACHE, RELEASES[NEWEST])
        _check_that_erlang_runs(root)
    except ServerMissing as error:
        fallback = _of_this_machine()
        reason = str(error).partition(". ")[0]
        print(f"RabbitMQ {version(fallback)}, as no newer one runs here: {reason}", file=sys.stderr)
        return fallback
    return root


def _of_this_machine() -> Path:
    for root in (Path("/"), debian.CACHE / BUNDLE.folder):
        if is_installed(root):
            return root
    return fetch(debian.CACHE)


def _check_that_erlang_runs(root: Path) -> None:
    machine = next((root / _ERLANG).glob("erts-*/bin/beam.smp"))
    try:
        subprocess.run([machine, "-V"], check=True, capture_output=True, timeout=30)
    except (OSError, subprocess.SubprocessError) as error:
        raise ServerMissing(
            f"Erlang of Debian's {RELEASES[NEWEST]} does not run: {error}"
        ) from error

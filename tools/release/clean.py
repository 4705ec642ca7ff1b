"""Installs one file in an environment of its own, as a user would, and uses what it brought.

Versions of what it needs are the newest there are: those a user gets on the day of the release.
"""

import os
import subprocess
from collections.abc import Iterable
from pathlib import Path
from typing import Final

from release.contents import wheel_files
from release.packages import Package, Unreleasable

#: Imports a package, tells its version, and then imports every module of it.
IMPORT = """
import importlib, pkgutil, sys
package = importlib.import_module(sys.argv[1])
print(package.__version__)
if sys.argv[2:]:
    try:
        import django
        from django.conf import settings
    except ImportError:
        pass
    else:
        apps = ["django.contrib.contenttypes", "django.contrib.auth", "django.contrib.admin"]
        settings.configure(INSTALLED_APPS=apps + sys.argv[3:])
        django.setup()
    for module in pkgutil.walk_packages(package.__path__, package.__name__ + "."):
        if module.name.rpartition(".")[2] not in ("__main__", "env"):  # these run as they load
            importlib.import_module(module.name)
"""
SECONDS: Final = 300
#: What modules import and no extra installs: users have it already, or choose it themselves.
BROUGHT: Final = {
    "celery-outbox": ("psycopg2-binary", "pytest"),
    "celery-inbox": ("django", "sqlalchemy"),
    "outbox-migrations": ("django",),
}


class Environment:
    """An empty virtual environment."""

    def __init__(self, folder: Path, uv: str, python: str) -> None:
        self._uv = uv
        self._folder = folder
        self.run(uv, "venv", "--quiet", "--python", python, str(folder))

    def install(self, *requirements: str) -> None:
        """Install files, with extras or without, and what they need."""
        python = self.program("python")
        self.run(self._uv, "pip", "install", "--quiet", "--python", python, *requirements)

    def names(self) -> set[str]:
        """Everything that is installed."""
        python = self.program("python")
        listed = self.run(self._uv, "pip", "freeze", "--quiet", "--python", python)
        return {line.partition("==")[0].partition(" @ ")[0] for line in listed.splitlines()}

    def program(self, name: str) -> str:
        """The path of a command that it has."""
        return str(self._folder / "bin" / name)

    def run(self, *command: str) -> str:
        """Run a command outside the checkout, whose packages must not be found by accident."""
        inherited = {k: v for k, v in os.environ.items() if not k.startswith(("PYTHON", "OUTBOX_"))}
        done = subprocess.run(
            command,
            cwd=self._folder.parent,
            env={k: v for k, v in inherited.items() if k not in ("VIRTUAL_ENV", "UV_PYTHON")},
            capture_output=True,
            text=True,
            timeout=SECONDS,
            check=False,
        )
        if done.returncode:
            words = (done.stderr or done.stdout).strip()
            raise Unreleasable(f"{Path(command[0]).name} ended with {done.returncode}:\n{words}")
        return done.stdout


def check_alone(environment: Environment, package: Package, file: Path, others: set[str]) -> None:
    """Installed from one file: it brings none of the others, imports, and its commands run."""
    environment.install(str(file))
    if brought := sorted(environment.names() & others):
        raise Unreleasable(f"{file.name} brings {', '.join(brought)} with it")
    _import(environment, package)
    for command in package.commands:
        told = environment.run(environment.program(command), "--version").split()
        if told != [command, package.version]:
            raise Unreleasable(f"{command} {package.version} says it is {' '.join(told)}")


def check_whole(environment: Environment, package: Package, file: Path) -> None:
    """With all its extras, and what users bring: every module finds what it needs."""
    extras = f"[{','.join(package.extras)}]" if package.extras else ""
    environment.install(f"{file}{extras}", *BROUGHT.get(package.name, ()))
    _import(environment, package, "every module", *_django_apps(file, package))


def _import(environment: Environment, package: Package, *arguments: str) -> None:
    python = environment.program("python")
    told = environment.run(python, "-c", IMPORT, package.module, *arguments).strip()
    if told != package.version:
        raise Unreleasable(f"{package.name} {package.version} says it is {told}")


def _django_apps(file: Path, package: Package) -> Iterable[str]:
    if f"{package.module}/django/apps.py" in wheel_files(file):
        yield f"{package.module}.django"

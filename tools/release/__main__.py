"""Builds all wheels and sdists and proves that they may be uploaded. Exit codes: 0 they may, 1 not.

Nothing is uploaded. What was built stays in dist/.
"""

import os
import shutil
import subprocess
import sys
import tempfile
from pathlib import Path
from typing import Final

from release.clean import Environment, check_alone, check_whole
from release.contents import check_contents
from release.packages import ROOT, Package, Unreleasable, packages

DIST: Final = ROOT / "dist"
#: As make found it; a path is made whole, because commands run in other folders.
UV: Final = shutil.which(os.environ.get("UV") or "uv") or "uv"


def main() -> int:
    """Check everything; the first thing that is wrong ends it."""
    try:
        with tempfile.TemporaryDirectory(prefix="release-") as folder:
            _check(Path(folder))
    except Unreleasable as problem:
        print(f"Not to be released: {problem}", file=sys.stderr)
        return 1
    return 0


def _check(folder: Path) -> None:
    ours = packages()
    shutil.rmtree(DIST, ignore_errors=True)
    _run({}, "build", "--quiet", "--all-packages", "--out-dir", str(DIST))
    for package in ours:
        check_contents(package, wheel_of(package), sdist_of(package))
    print(f"{ours[0].version}: wheels and sdists are built, each with its own files alone")
    files = [str(file) for each in ours for file in (wheel_of(each), sdist_of(each))]
    # An environment of its own: what checks a release is none of the tools of every day.
    own = {"UV_PROJECT_ENVIRONMENT": str(folder / "twine")}
    twine = ("run", "--quiet", "--frozen", "--only-group=release", "twine", "check", "--strict")
    _run(own, *twine, *files)
    print("metadata and pages: an index takes them")
    for package in ours:
        _install(folder, package, {each.name for each in ours if each is not package})


def _install(folder: Path, package: Package, others: set[str]) -> None:
    for file in (wheel_of(package), sdist_of(package)):
        environment = _environment(folder / file.name)
        check_alone(environment, package, file, others)
    check_whole(_environment(folder / f"{package.name}-whole"), package, wheel_of(package))
    print(f"{package.name}: wheel and sdist install alone and work; every module has what it needs")


def _environment(folder: Path) -> Environment:
    return Environment(folder, UV, sys.executable)


def wheel_of(package: Package) -> Path:
    """The wheel that was built."""
    return DIST / f"{package.stem}-py3-none-any.whl"


def sdist_of(package: Package) -> Path:
    """The source distribution that was built."""
    return DIST / f"{package.stem}.tar.gz"


def _run(own: dict[str, str], *arguments: str) -> None:
    """Run uv in the checkout."""
    done = subprocess.run(
        [UV, *arguments],
        cwd=ROOT,
        env={**os.environ, **own},
        capture_output=True,
        text=True,
        check=False,
    )
    if done.returncode:
        words = (done.stdout + done.stderr).strip()
        raise Unreleasable(f"`uv {arguments[0]}` ended with {done.returncode}:\n{words}")


if __name__ == "__main__":
    sys.exit(main())

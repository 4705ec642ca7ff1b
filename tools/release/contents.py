"""What is in the files: a package's own modules, its licence and its page, and nothing else."""

import tarfile
import zipfile
from collections.abc import Iterator
from pathlib import Path

from release.packages import ROOT, Package, Unreleasable


def check_contents(package: Package, wheel: Path, sdist: Path) -> None:
    """Refuse files that hold something else, or not all of it."""
    problems = [
        *_compare("wheel", wheel_files(wheel), _in_wheel(package)),
        *_compare("sdist", sdist_files(sdist) - _tolerated(package), _in_sdist(package)),
    ]
    if problems:
        raise Unreleasable(f"{package.name}: " + "; ".join(problems))


def wheel_files(wheel: Path) -> set[str]:
    """What installing it puts somewhere."""
    with zipfile.ZipFile(wheel) as archive:
        return {name for name in archive.namelist() if not name.endswith("/")}


def sdist_files(sdist: Path) -> set[str]:
    """What unpacking it makes."""
    with tarfile.open(sdist) as archive:
        return {member.name for member in archive if member.isfile()}


def sources(package: Package, root: Path = ROOT) -> set[str]:
    """The files of the package itself, as its folder has them; caches are nobody's."""
    folder = root / package.folder
    return {
        str(file.relative_to(folder))
        for file in (folder / package.module).rglob("*")
        if file.is_file() and "__pycache__" not in file.parts
    }


def _in_wheel(package: Package) -> set[str]:
    info = f"{package.stem}.dist-info"
    told = {f"{info}/{name}" for name in ("METADATA", "RECORD", "WHEEL", "licenses/LICENSE")}
    if package.commands:
        told.add(f"{info}/entry_points.txt")
    return sources(package) | told


def _in_sdist(package: Package) -> set[str]:
    own = sources(package) | {"LICENSE", "PKG-INFO", "README.md", "pyproject.toml"}
    return {f"{package.stem}/{name}" for name in own}


def _tolerated(package: Package) -> set[str]:
    """Newer versions of uv write the project file anew, and keep it as it was."""
    return {f"{package.stem}/pyproject.toml.orig"}


def _compare(kind: str, found: set[str], wanted: set[str]) -> Iterator[str]:
    if foreign := sorted(found - wanted):
        yield f"its {kind} also holds {', '.join(foreign)}"
    if missing := sorted(wanted - found):
        yield f"its {kind} lacks {', '.join(missing)}"

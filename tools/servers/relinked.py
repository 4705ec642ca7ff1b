"""Programs of another Debian run here: they are pointed to the libraries unpacked beside them.

Debian's programs look for the machine's libc, which may be older than they need. patchelf writes
into each where its own one is. That is an absolute path: a folder that was moved is done again.
"""

import os
import shutil
import subprocess
import sys
from collections.abc import Iterable, Iterator
from pathlib import Path
from typing import Final

from servers.errors import ServerMissing

#: Keeps the place for which an unpacked tree was linked.
_MARK: Final = ".linked-for"
_PLACES: Final = ("usr/lib/*-linux-gnu*", "lib/*-linux-gnu*")
_ELF: Final = b"\x7fELF"


def relink(root: Path, programs: Iterable[str]) -> None:
    """Have the programs of an unpacked tree, files or folders below it, use its libraries."""
    mark = root / _MARK
    if mark.exists() and mark.read_text() == str(root):
        return
    patchelf = _patchelf()
    # Before Debian 13, libc's own are below /lib.
    libraries = [folder for place in _PLACES for folder in root.glob(place)]
    loader = next(found for folder in libraries for found in folder.glob("ld-linux*.so.*"))
    for file in _binaries(root, programs):
        path = ["--force-rpath", "--set-rpath", ":".join(map(str, libraries))]
        start = [] if ".so" in file.name else ["--set-interpreter", str(loader)]
        subprocess.run(
            [patchelf, *start, *path, str(file)], check=True, capture_output=True, text=True
        )
    mark.write_text(str(root))


def _patchelf() -> str:
    """Return the program of the wheel in this environment, or the machine's."""
    beside = Path(sys.executable).with_name("patchelf")
    found = str(beside) if os.access(beside, os.X_OK) else shutil.which("patchelf")
    if found is None:
        raise ServerMissing("Servers of another Debian need patchelf, which `make setup` installs.")
    return found


def _binaries(root: Path, programs: Iterable[str]) -> Iterator[Path]:
    """Yield the executables and shared objects among the programs."""
    for program in programs:
        place = root / program
        for file in sorted(place.rglob("*")) if place.is_dir() else [place]:
            if file.is_symlink() or not file.is_file():
                continue
            if os.access(file, os.X_OK) or file.suffix == ".so":
                with file.open("rb") as opened:
                    if opened.read(len(_ELF)) == _ELF:
                        yield file

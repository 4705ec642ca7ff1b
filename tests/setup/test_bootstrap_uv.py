"""The bootstrap of uv: only what the lock file names, whole or not at all."""

import hashlib
import io
import zipfile
from pathlib import Path

import pytest

import bootstrap_uv
from bootstrap_uv import Wheel


@pytest.fixture
def wheel(tmp_path: Path) -> Wheel:
    """A wheel with a binary in it, at a file URL."""
    content = io.BytesIO()
    with zipfile.ZipFile(content, "w") as archive:
        archive.writestr("uv/__init__.py", "")
        archive.writestr("uv-1.0.data/scripts/uv", "#!/bin/sh\necho uv 1.0\n")
    file = tmp_path / "uv-1.0-py3-none-manylinux_2_17_x86_64.manylinux2014_x86_64.whl"
    file.write_bytes(content.getvalue())
    return Wheel(file.as_uri(), hashlib.sha256(content.getvalue()).hexdigest())


@pytest.mark.parametrize(
    ("wanted", "tag"),
    [
        (("manylinux", "_x86_64"), "manylinux_2_17_x86_64"),
        (("manylinux", "_aarch64"), "manylinux_2_17_aarch64"),
        (("musllinux", "_x86_64"), "musllinux_1_1_x86_64"),
        (("macosx_", "_arm64"), "macosx_11_0_arm64"),
    ],
)
def test_the_lock_file_has_a_wheel_for_every_platform(wanted: tuple[str, str], tag: str) -> None:
    """What is pinned for the project is found for the machines people use."""
    locked = bootstrap_uv.locked_wheels(bootstrap_uv.CHECKOUT / "uv.lock")

    assert tag in bootstrap_uv.choose(locked, wanted).platform_tags


def test_an_unknown_platform_is_named(wheel: Wheel) -> None:
    """A machine without a wheel learns what was looked for."""
    with pytest.raises(LookupError, match=r"manylinux\*_sparc"):
        bootstrap_uv.choose([wheel], ("manylinux", "_sparc"))


def test_the_binary_is_unpacked_executable(wheel: Wheel, tmp_path: Path) -> None:
    """The wheel's binary arrives under its name, and nothing beside it."""
    target = tmp_path / "checkout" / "bin" / "uv"

    bootstrap_uv.unpack(bootstrap_uv.download(wheel), target)

    assert target.read_text() == "#!/bin/sh\necho uv 1.0\n"
    assert target.stat().st_mode & 0o111 == 0o111
    assert list(target.parent.iterdir()) == [target]


def test_a_download_with_another_hash_is_refused(wheel: Wheel) -> None:
    """A file that is not the one the lock file names is never unpacked."""
    with pytest.raises(ValueError, match=r"not the file that uv\.lock names"):
        bootstrap_uv.download(Wheel(wheel.url, "0" * 64))

"""Which RabbitMQ is used: the one asked for, else the newest that runs here."""

import os
import shutil
import subprocess
from collections.abc import Iterator
from pathlib import Path

import pytest

from servers import ServerMissing, debian, rabbitmq_packages
from servers.relinked import relink

RABBITMQ = "usr/lib/rabbitmq"


@pytest.fixture
def cache(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[Path]:
    """An empty place for unpacked servers, and nothing that says which to use."""
    monkeypatch.setattr(debian, "CACHE", tmp_path)
    for name in ("RABBITMQ_ROOT", "RABBITMQ_VERSION"):
        monkeypatch.delenv(name, raising=False)
    rabbitmq_packages._newest_that_runs.cache_clear()
    yield tmp_path
    rabbitmq_packages._newest_that_runs.cache_clear()


def unpacked(folder: Path, version: str) -> Path:
    """Make what looks like an installation of a version."""
    (folder / RABBITMQ / f"lib/rabbitmq_server-{version}").mkdir(parents=True)
    server = folder / RABBITMQ / "bin/rabbitmq-server"
    server.parent.mkdir()
    server.touch(mode=0o755)
    return folder


def test_a_root_that_is_named_is_used(cache: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Whoever found one before need not be asked again."""
    monkeypatch.setenv("RABBITMQ_ROOT", "/elsewhere")

    assert rabbitmq_packages.find_or_fetch() == Path("/elsewhere")


def test_a_release_that_is_there_is_not_fetched(
    cache: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The distribution's own serves where it is of the release asked for."""
    root = unpacked(cache / "rabbitmq", "3.10.8")
    monkeypatch.setenv("RABBITMQ_VERSION", "3.10")

    assert rabbitmq_packages.find_or_fetch() == root
    assert rabbitmq_packages.version(root) == "3.10.8"


def test_an_unknown_release_is_named(cache: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """The error says which there are."""
    monkeypatch.setenv("RABBITMQ_VERSION", "3.9")

    with pytest.raises(ServerMissing, match=r"RABBITMQ_VERSION=3\.9: use 3\.10, 4\.0, 4\.3"):
        rabbitmq_packages.find_or_fetch()


def test_a_suite_that_moved_on_is_no_other_release(
    cache: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """A test of 4.3 never runs on what came after it without a word."""
    monkeypatch.setattr(debian, "fetch", lambda *_: unpacked(cache / "any", "4.4.0"))

    with pytest.raises(ServerMissing, match=r"sid has RabbitMQ 4\.4\.0 by now, no longer 4\.3"):
        rabbitmq_packages.release("4.3")


def test_where_the_newest_cannot_be_had_one_line_says_so(
    cache: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    """The distribution's own is used instead."""
    own = unpacked(cache / "rabbitmq", "3.10.8")

    def fetch(_: Path, bundle: debian.Bundle) -> Path:
        raise ServerMissing(f"{bundle.suite} cannot be had. Try later")

    monkeypatch.setattr(debian, "fetch", fetch)

    assert [rabbitmq_packages.find_or_fetch() for _ in range(2)] == [own, own]
    (line,) = capsys.readouterr().err.splitlines()
    assert line == "RabbitMQ 3.10.8, as no newer one runs here: sid cannot be had"


def test_programs_of_another_debian_find_their_libraries_wherever_they_are(tmp_path: Path) -> None:
    """Linked to the libraries beside them, and linked again where the folder was moved."""
    root = tmp_path / "first"
    libraries = root / "usr/lib/any-linux-gnu"
    libraries.mkdir(parents=True)
    for name in ("libc.so.6", _loader().name):
        shutil.copy(next(Path("/lib").glob(f"*-linux-gnu/{name}")), libraries)
    (root / "programs").mkdir()
    shutil.copy("/bin/true", root / "programs")
    (root / "programs/notes.txt").write_text("no program")

    relink(root, ["programs"])
    moved = root.rename(tmp_path / "second")
    with pytest.raises(FileNotFoundError):  # its loader was in the first place
        subprocess.run([moved / "programs/true"], check=True)
    relink(moved, ["programs"])
    subprocess.run([moved / "programs/true"], check=True)

    mapped = subprocess.run(
        [moved / "programs/true"],
        env={**os.environ, "LD_TRACE_LOADED_OBJECTS": "1"},
        capture_output=True,
        text=True,
        check=True,
    )
    assert str(moved / "usr/lib/any-linux-gnu/libc.so.6") in mapped.stdout


def _loader() -> Path:
    return next(Path("/lib").glob("*-linux-gnu/ld-linux*.so.*"))

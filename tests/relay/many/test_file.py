"""The file while people edit it: what is right counts, and what is half there does not."""

import os
from pathlib import Path
from time import time

import pytest

from outbox_relay.errors import SettingsError
from outbox_relay.many.file import SETTLED, DatabasesFile
from tests.relay.many.test_lines import base

SHOP, MAIL = "postgresql://db/shop\n", "postgresql://db/mail\n"


@pytest.fixture
def path(tmp_path: Path) -> Path:
    """Where the file is."""
    return tmp_path / "outboxes"


def write(path: Path, text: str, *, ago: float = SETTLED + 1) -> None:
    """Leave the file as somebody who has finished writing it so long ago."""
    path.write_text(text)
    os.utime(path, (time() - ago, time() - ago))


def names(file: DatabasesFile) -> list[str]:
    """The databases that count now."""
    return [line.name for line in file.lines()[0]]


def test_a_change_counts_at_the_next_look(path: Path) -> None:
    """No restart is needed."""
    write(path, SHOP)
    file = DatabasesFile(path, base())
    assert names(file) == ["shop"]

    write(path, SHOP + MAIL)

    assert names(file) == ["shop", "mail"]


def test_what_is_being_written_does_not_count_yet(path: Path) -> None:
    """The first half of a file would stop the outboxes of the second half."""
    write(path, SHOP + MAIL)
    file = DatabasesFile(path, base())
    assert names(file) == ["shop", "mail"]

    write(path, MAIL, ago=0)
    assert names(file) == ["shop", "mail"]
    write(path, MAIL + SHOP, ago=0)
    assert names(file) == ["shop", "mail"]

    assert names(file) == ["mail", "shop"]  # the same twice


@pytest.mark.parametrize(
    ("text", "told"),
    [
        ("", "names no database"),
        (SHOP + "postgresql://db/mail windows=3", "line 2: windows"),
        (None, "cannot be read: No such file"),
    ],
    ids=["empty", "wrong", "gone"],
)
def test_what_is_wrong_changes_nothing(path: Path, text: str | None, told: str) -> None:
    """The lines from before count until it is right again, and that is said."""
    write(path, SHOP + MAIL)
    file = DatabasesFile(path, base())
    file.lines()

    if text is None:
        path.unlink()
    else:
        write(path, text)
    lines, wrong = file.lines()

    assert [line.name for line in lines] == ["shop", "mail"]
    assert told in wrong
    assert f"OUTBOX_DATABASES_FILE={path}" in wrong
    assert "the lines from before still count" in wrong

    write(path, MAIL)
    lines, wrong = file.lines()
    assert ([line.name for line in lines], wrong) == (["mail"], "")


def test_at_the_start_it_must_be_right(path: Path) -> None:
    """There is nothing from before: the process ends with a sentence."""
    with pytest.raises(SettingsError, match=rf"OUTBOX_DATABASES_FILE={path}: it cannot be read"):
        DatabasesFile(path, base()).lines()


def test_bytes_that_are_no_text_are_a_mistake(path: Path) -> None:
    """And not a traceback."""
    path.write_bytes(b"\xff\xfe\x00")

    with pytest.raises(SettingsError, match="not UTF-8"):
        DatabasesFile(path, base()).lines()

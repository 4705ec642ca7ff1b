"""`make test-servers`: what each version is tried with, and the table that comes of it."""

import sys
from pathlib import Path

import pytest

from matrix import page, places, rows
from matrix.rows import Result, Row
from servers import ServerMissing

CHECKOUT = Path(__file__).resolve().parents[2]


def test_every_suite_is_there() -> None:
    """A file that was moved would leave a version untried."""
    for paths in rows.SUITES.values():
        assert all((CHECKOUT / path).exists() for path in paths)


def test_every_version_has_a_name_of_its_own() -> None:
    """By which the command line asks for it."""
    keys = [row.key for row in rows.rows("uv")]

    assert len(keys) == len({*keys}) == 16
    assert {"rabbitmq-4.3", "redis-7", "valkey-9", "postgres-14", "python-3.14"} <= {*keys}


def test_what_cannot_be_had_is_told_apart_from_what_fails() -> None:
    """With the reason, in one line."""

    def prepare() -> rows.Prepared:
        raise ServerMissing("not in this registry\nmore of it")

    result = rows.run(Row("Postgres", "Postgres 99", prepare), [])

    assert (result.missing, result.failed) == ("not in this registry", 0)


@pytest.mark.parametrize("outcome", ["pass", "fail"])
def test_results_are_those_of_pytest(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, outcome: str
) -> None:
    """Counted from its last line, with the names of what failed."""
    test = tmp_path / "test_it.py"
    test.write_text(f"def test_one(): assert {outcome == 'pass'}\ndef test_two(): pass\n")
    monkeypatch.setattr(rows, "SUITES", {"Postgres": (str(test),)})
    monkeypatch.setattr(places, "CHECKOUT", tmp_path)

    result = rows.run(Row("Postgres", "Postgres 99", lambda: (Path(sys.executable).parent, {})), [])

    assert (result.passed, result.failed) == ((2, 0) if outcome == "pass" else (1, 1))
    assert len(result.failures) == result.failed


def test_the_table_takes_the_place_of_the_last_one(tmp_path: Path) -> None:
    """What stands around it stays."""
    file = tmp_path / "page.md"
    file.write_text(f"before\n{page.BEGIN}old\n{page.END}after\n")
    results = [
        Result("Postgres", "Postgres 14", passed=1200, skipped=3),
        Result("Python", "Python 3.12", missing="nowhere"),
    ]

    for _ in range(2):
        page.write(file, results)

    text = file.read_text()
    assert text.startswith(f"before\n{page.BEGIN}| | passed")
    assert text.endswith(f"{page.END}after\n")
    assert "| Postgres 14 | 1,200 | 0 | 3 | none |" in text
    assert "not tried: nowhere" in text
    assert "old" not in text

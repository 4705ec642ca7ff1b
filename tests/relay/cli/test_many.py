"""`status` and `doctor` of all outboxes of a file."""

from pathlib import Path
from typing import Any

import psycopg
import pytest
from psycopg import sql

from outbox_migrations import upgrade
from outbox_relay.cli.doctor import summed_up
from outbox_relay.cli.status_many import MAX_SHOWN
from outbox_relay.cli.wrapping import MAX_NAMES
from outbox_relay.core.finding import Finding, ok, problem
from outbox_relay.many.examination import Shared
from servers.ports import free_port
from tests.fixtures.broker import Broker
from tests.fixtures.rows import commit_rows
from tests.relay.conftest import NO_MANAGEMENT, Cli, finding

AGO = "UPDATE {}.message SET created_at = created_at - interval '1 hour'"


@pytest.fixture
def file(tmp_path: Path, database: str) -> Path:
    """A file of three outboxes in one database: one waits, one has waited for an hour."""
    for schema in ("tenant_1", "tenant_2"):
        upgrade(database, schema, "outbox")
    commit_rows(database, 3)
    commit_rows(database, schema="tenant_2")
    with psycopg.connect(database) as connection:
        connection.execute(sql.SQL(AGO).format(sql.Identifier("tenant_2")))
    path = tmp_path / "outboxes"
    path.write_text(f"{database} outbox tenant_* name=app\n")
    return path


def rows(text: str) -> list[dict[str, str]]:
    """The lines of a table, by its columns."""
    head, *lines = [line.split("\t") for line in text.splitlines() if "\t" in line]
    return [dict(zip(head, line, strict=True)) for line in lines]


def test_status_has_a_line_for_each_the_worst_first(command: Cli, file: Path) -> None:
    """Whoever is furthest behind is what one looks for."""
    answer = command("status", OUTBOX_DATABASES_FILE=str(file))

    shown = rows(answer.out)
    assert [row["outbox"] for row in shown] == ["app/tenant_2", "app", "app/tenant_1"]
    assert [row["pending"] for row in shown] == ["1", "3", "0"]
    assert shown[0]["oldest"].startswith("1h 0m")
    assert {row["served"] for row in shown} == {"no"}
    assert answer.out.splitlines()[-1] == "3 outboxes: 4 pending, 0 scheduled, 0 dead"
    assert answer.code == 0


def test_status_for_programs(command: Cli, file: Path) -> None:
    """Everything that is known of one, for each."""
    said: Any = command("status", "--json", OUTBOX_DATABASES_FILE=str(file)).json()

    assert [each["outbox"] for each in said["outboxes"]] == ["app/tenant_2", "app", "app/tenant_1"]
    assert [each["pending"] for each in said["outboxes"]] == [1, 3, 0]
    assert said["trouble"] == []


def test_a_database_that_is_away_is_a_line(command: Cli, file: Path) -> None:
    """Before all others; and the exit code says that not everything is known."""
    with file.open("a") as written:
        written.write(f"postgresql://nobody:hunter2@127.0.0.1:{free_port()}/away\n")

    answer = command("status", OUTBOX_DATABASES_FILE=str(file))

    first, *others = rows(answer.out)
    assert first["outbox"] == "away"
    assert "does not answer" in first["trouble"]
    assert len(others) == 3
    assert "1 cannot be asked" in answer.out
    assert answer.code == 1
    assert "hunter2" not in answer.out + answer.err


def test_a_schema_that_is_missing_is_a_line(command: Cli, file: Path, database: str) -> None:
    """And the others of its database are asked all the same."""
    file.write_text(f"{database} nowhere outbox name=app\n")

    answer = command("status", OUTBOX_DATABASES_FILE=str(file))

    first, second = rows(answer.out)
    assert (first["outbox"], second["outbox"]) == ("app/nowhere", "app")
    assert "run outbox-migrate up" in first["trouble"]
    assert second["pending"] == "3"


def test_a_pattern_that_finds_nothing_is_told(command: Cli, file: Path, database: str) -> None:
    """With what to do about it."""
    file.write_text(f"{database} shop_* name=app\n")

    answer = command("status", OUTBOX_DATABASES_FILE=str(file))

    assert "outbox-migrate up --schemas 'shop_*'" in answer.err
    assert answer.out.endswith("0 cannot be asked, and there may be more\n")
    assert answer.code == 1


def test_status_shows_no_more_than_fits(command: Cli, file: Path, database: str) -> None:
    """Two hundred tenants are no screen; programs get them all."""
    nowhere = " ".join(f"nowhere_{number}" for number in range(MAX_SHOWN))
    file.write_text(f"{database} outbox tenant_1 {nowhere} name=app\n")

    answer = command("status", OUTBOX_DATABASES_FILE=str(file))

    assert len(rows(answer.out)) == MAX_SHOWN
    assert "and 2 more, less far behind" in answer.out


def test_doctor_examines_them_all(command: Cli, file: Path, broker: Broker) -> None:
    """What is alike is told once, with the names; the worst decides the exit code."""
    answer = command(
        "doctor",
        OUTBOX_DATABASES_FILE=str(file),
        OUTBOX_BROKER_URL=broker.url,
        OUTBOX_MANAGEMENT_URL=NO_MANAGEMENT,
    )

    assert answer.code == 1
    assert "app/tenant_2: no relay is connected, and 1 message(s) wait" in answer.out
    assert "app/tenant_1: no relay is connected" in finding(answer, "warn", "relays")
    assert finding(answer, "ok", "schema") == "ok       schema: well with 3 outbox(es)"
    assert answer.out.count("RabbitMQ") >= 1
    assert answer.out.count("route: ") == 1  # of all three, as they publish to one broker


def test_doctor_of_one(command: Cli, file: Path, broker: Broker) -> None:
    """As if there were no others."""
    answer = command(
        "doctor",
        "--outbox",
        "app/tenant_1",
        OUTBOX_DATABASES_FILE=str(file),
        OUTBOX_BROKER_URL=broker.url,
        OUTBOX_MANAGEMENT_URL=NO_MANAGEMENT,
    )

    assert answer.code == 0
    assert "tenant_2" not in answer.out


def test_doctor_for_programs(command: Cli, file: Path) -> None:
    """Each finding with the outboxes it is about."""
    said: Any = command("doctor", "--json", OUTBOX_DATABASES_FILE=str(file)).json()

    broker = [each for each in said if each["name"] == "broker"]
    assert [each["level"] for each in broker] == ["problem"]
    assert sorted(broker[0]["outboxes"]) == ["app", "app/tenant_1", "app/tenant_2"]


def test_findings_are_summed_up() -> None:
    """Some names are enough to begin with, and of what is well the number."""
    many = tuple(f"app/tenant_{number}" for number in range(MAX_NAMES + 7))
    bad = problem("clock", "an hour off", "set it")

    shown = summed_up([Shared(bad, many), Shared(ok("storage", "small"), many), Shared(bad)])

    assert shown == [
        ok("storage", f"well with {len(many)} outbox(es)"),
        Finding(
            "clock",
            bad.level,
            f"{', '.join(many[:MAX_NAMES])} and 7 more: an hour off",
            "set it",
        ),
        bad,
    ]

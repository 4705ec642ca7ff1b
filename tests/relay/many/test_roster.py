"""Which outboxes there are, on real servers: tenants come and go, databases too."""

import os
from collections.abc import Callable
from pathlib import Path
from threading import Event
from time import monotonic, time
from urllib.parse import urlsplit

import psycopg
import pytest

from outbox_migrations import upgrade
from outbox_relay.errors import SettingsError
from outbox_relay.many import discovery
from outbox_relay.many.discovery import Discovery
from outbox_relay.many.file import SETTLED
from outbox_relay.many.lines import parse
from outbox_relay.many.roster import Roster
from outbox_relay.postgres.database import CONNECT_TIMEOUT_SECONDS
from outbox_relay.settings import Settings
from servers.ports import free_port
from tests.fixtures.frozen import Frozen
from tests.fixtures.waiting import wait_until
from tests.relay.many.tenants import DEADLINE
from tests.relay.many.test_lines import base

Make = Callable[[str], Roster]


@pytest.fixture
def path(tmp_path: Path) -> Path:
    """Where the file is."""
    return tmp_path / "outboxes"


def write(path: Path, text: str) -> None:
    """Leave the file as somebody who has finished writing it."""
    path.write_text(text)
    os.utime(path, (time() - SETTLED - 1,) * 2)


@pytest.fixture
def roster(path: Path) -> Make:
    """A roster of a file with this text."""

    def make(text: str) -> Roster:
        write(path, text)
        return Roster(base(OUTBOX_DATABASES_FILE=str(path)), deadline=1.0)

    return make


def names(roster: Roster) -> list[str]:
    """Of the outboxes that there are now."""
    return [outbox.name for outbox in roster.read().outboxes]


def test_tenants_come_and_go(database: str, roster: Make) -> None:
    """A schema counts from its migration on, and no longer once it is dropped."""
    served = roster(f"{database} tenant_* name=app")
    reading = served.read()
    assert reading.outboxes == ()
    assert "app: no schema called tenant_* holds an outbox (line 1)" in reading.trouble[0]
    assert "outbox-migrate up --schemas 'tenant_*'" in reading.trouble[0]

    upgrade(database, "tenant_1", "outbox")
    upgrade(database, "tenant_2", "outbox")
    with psycopg.connect(database, autocommit=True) as connection:
        connection.execute("CREATE SCHEMA tenant_3")  # nobody has migrated it yet
        (first, second) = served.read().outboxes
        assert [first.name, second.name] == ["app/tenant_1", "app/tenant_2"]
        assert [first.settings.schema, second.settings.schema] == ["tenant_1", "tenant_2"]
        assert first.settings.database_url.read() == database

        connection.execute("DROP SCHEMA tenant_1 CASCADE")
    assert names(served) == ["app/tenant_2"]


def test_a_login_without_rights_sees_them_too(database: str, roster: Make) -> None:
    """What it may not do is told by the relay that tries to, and by doctor: not by silence."""
    upgrade(database, "tenant_1", "outbox")
    with psycopg.connect(database, autocommit=True) as connection:
        connection.execute("CREATE ROLE stranger LOGIN PASSWORD 'stranger'")
        try:
            url = urlsplit(database)
            stranger = url._replace(
                netloc=f"stranger:stranger@{url.netloc.rpartition('@')[2]}"
            ).geturl()
            assert names(roster(f"{stranger} * name=app")) == ["app", "app/tenant_1"]
        finally:
            connection.execute("DROP ROLE stranger")


def test_a_schema_is_served_once(database: str, roster: Make) -> None:
    """By the first line that names it, also under another name."""
    upgrade(database, "tenant_1", "outbox")
    served = roster(f"{database} tenant_1 window=9 name=app\n{database} * name=rest")

    found = {each.name: each.settings.window for each in served.read().outboxes}

    assert found == {"app/tenant_1": 9, "rest": 4000}


def test_a_schema_that_is_named_needs_no_look(roster: Make) -> None:
    """Its outbox is there while its database is away: the relay waits for it."""
    served = roster(f"postgresql://nobody@127.0.0.1:{free_port()}/shop\n")

    assert served.read() == served.read()
    assert names(served) == ["shop"]
    assert served.read().trouble == ()


def test_the_outboxes_of_a_database_that_is_away_are_kept(
    database: str, path: Path, roster: Make
) -> None:
    """It will be back, and so will their messages."""
    secret = path.with_name("url")
    secret.write_text(database)
    served = roster(f"database_url_file={secret} * name=app")
    assert names(served) == ["app"]

    parts = urlsplit(database)
    away = parts._replace(query=f"{parts.query}&options=-c%20no_such%3D1".lstrip("&"))
    secret.write_text(away.geturl())  # the same database; it refuses whoever comes so
    reading = served.read()

    assert [each.name for each in reading.outboxes] == ["app"]
    assert reading.trouble[0].startswith("app: ")
    assert "outboxes found before are kept" in reading.trouble[0]


def test_a_database_that_is_away_holds_up_no_other(
    database: str, roster: Make, frozen: Frozen
) -> None:
    """A frozen server takes its time, the others are asked beside it, and none is asked twice."""
    lines = [f"{frozen.url(f'db{number}')} *" for number in range(8)]
    served = roster("\n".join([*lines, f"{database} * name=app"]))

    began = monotonic()
    reading = served.read()
    took = monotonic() - began

    assert [each.name for each in reading.outboxes] == ["app"]
    assert len(reading.trouble) == 8
    assert all("did not answer within 1 s (none is known)" in t for t in reading.trouble)
    assert took < CONNECT_TIMEOUT_SECONDS
    assert names(served) == ["app"]
    assert frozen.connections() == 8


def test_no_more_connections_than_allowed(frozen: Frozen) -> None:
    """However many databases there are, and whatever they do."""
    lines = parse("\n".join(f"{frozen.url(f'db{n}')} *" for n in range(12)), base())
    databases = {line.address: line.settings for line in lines}

    asked = Discovery(deadline=0.5, at_once=3).ask(databases)

    assert asked.keys() == databases.keys()
    assert all(answer.trouble for answer in asked.values())
    assert frozen.connections() == 3


def test_those_for_which_there_was_no_time_are_asked_first_the_next_time(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    """Else the last of many databases would never be asked."""
    lines = parse(
        "\n".join(f"postgresql://db{number}/app{number} *" for number in range(3)), base()
    )
    databases = {line.address: line.settings for line in lines}
    order: list[str] = []
    gate = Event()

    def slow(settings: Settings) -> tuple[str, ...]:
        order.append(settings.database_url.read()[-1])
        gate.wait(DEADLINE)
        return ()

    monkeypatch.setattr(discovery, "schemas_of", slow)
    served = Discovery(deadline=0.2, at_once=1)
    served.ask(databases)
    assert order == ["0"]
    gate.set()

    wait_until(lambda: served.ask(databases) and len(order) >= 3, DEADLINE, "all were asked")
    assert order[:3] == ["0", "1", "2"]


def test_no_trouble_tells_a_password(roster: Make) -> None:
    """Neither of a server that is away, nor of one that does not exist."""
    port = free_port()
    served = roster(f"postgresql://relay:hunter2@127.0.0.1:{port}/app tenant_*")

    (trouble,) = served.read().trouble

    assert "app: " in trouble
    assert "hunter2" not in trouble


def test_one_is_found_by_its_name(roster: Make) -> None:
    """Or the error says how they are called."""
    served = roster("postgresql://db/app tenant_*\npostgresql://db/shop")

    assert served.named("app/tenant_7").settings.schema == "tenant_7"
    assert served.named("shop").settings.schema == "outbox"
    with pytest.raises(SettingsError, match=r"no outbox is called 'mail'; there are: .*shop"):
        served.named("mail")

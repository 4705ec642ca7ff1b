"""What is fetched is what was inserted, and no more of it at a time than there is room for."""

from typing import Any

import psycopg
import pytest
from psycopg import errors

from outbox_relay.core.message import Held
from outbox_relay.postgres import store as store_module
from outbox_relay.postgres.store import Store
from tests.fixtures.rows import commit_rows, ids_in
from tests.relay.postgres.steps import claim, fetch, lease, settle


def test_a_message_is_what_was_inserted(emptied_database: str, store: Store) -> None:
    """Every column, to the letter: spacing and order of the JSON included."""
    columns: dict[str, Any] = {
        "exchange": "events",
        "routing_key": "shop.order",
        "headers": '{"b":  1, "a": [null, "\\u00e9"], "b": 2}',
        "properties": '{"priority": 3 }',
        "body": bytes(range(256)),
        "content_type": "application/octet-stream",
        "content_encoding": "binary",
        "mandatory": False,
        "declare": '[{"kind": "exchange"}]',
    }
    (message_id,) = commit_rows(emptied_database, **columns)

    (message,) = claim(store)

    assert message.message_id == message_id
    as_bytes = {name: columns[name].encode() for name in ("headers", "properties")}
    assert {name: getattr(message, name) for name in columns} == columns | as_bytes
    assert (message.attempts, message.suspicion, message.expired) == (0, 0, False)


def test_an_expired_message_says_so(emptied_database: str, store: Store) -> None:
    """By the database's clock."""
    commit_rows(emptied_database, expires_in=-1)
    commit_rows(emptied_database, expires_in=3600)

    assert [m.expired for m in claim(store)] == [True, False]


def test_large_bodies_wait_for_room(
    emptied_database: str, store: Store, monkeypatch: pytest.MonkeyPatch
) -> None:
    """As many bodies as fit come at once, in order; the others are named to be given back."""
    monkeypatch.setattr(store_module, "SMALL", 100)
    monkeypatch.setattr(store_module, "MAX_FETCH_BYTES", 1300)
    ids = commit_rows(emptied_database, 5, body=b"x" * 400)

    found = fetch(store, leased := lease(store))

    assert [m.message_id for m in found.messages] == ids[:3]
    assert found.too_large == [Held(row.id, row.slot, 1) for row in leased[3:]]


@pytest.mark.parametrize("column", ["headers", "properties", "declare"])
def test_all_of_a_message_counts(emptied_database: str, store: Store, column: str) -> None:
    """A whole batch of the largest headers or declarations takes no more than bodies may."""
    text = f'{{"x": "{"x" * 120_000}"}}'
    large = commit_rows(
        emptied_database, 300, **{column: f"[{text}]" if column == "declare" else text}
    )
    ids = commit_rows(emptied_database, 5)

    found = fetch(store, lease(store, 500))

    assert [m.message_id for m in found.messages][-5:] == ids
    assert [m.message_id for m in found.messages][:-5] == large[: len(found.messages) - 5]
    assert sum(m.size for m in found.messages) < store_module.MAX_FETCH_BYTES + (1 << 20)
    assert len(found.messages) + len(found.too_large) == 305
    as_text = found.messages[0]._asdict()[column]
    assert text in (as_text if column == "declare" else as_text.decode())


def test_a_body_larger_than_all_room_comes_alone(
    emptied_database: str, store: Store, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Otherwise it would never be sent."""
    monkeypatch.setattr(store_module, "SMALL", 100)
    monkeypatch.setattr(store_module, "MAX_FETCH_BYTES", 1000)
    ids = commit_rows(emptied_database, 2, body=b"x" * 5000)

    found = fetch(store, lease(store))

    assert [m.message_id for m in found.messages] == ids[:1]
    assert len(found.too_large) == 1


def test_a_body_beyond_the_brokers_limit_is_not_fetched(
    emptied_database: str, store: Store, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Its size is all that is needed of it, and it takes no room from others."""
    monkeypatch.setattr(store_module, "SMALL", 100)
    monkeypatch.setattr(store_module, "MAX_FETCH_BYTES", 1000)
    (large,) = commit_rows(emptied_database, body=b"x" * 5000)
    ids = commit_rows(emptied_database, 2, body=b"x" * 400)

    found = fetch(store, lease(store), max_body=4000)

    assert [m.message_id for m in found.messages] == ids
    (beyond,) = found.oversized
    assert (beyond.message.message_id, beyond.size, beyond.limit) == (large, 5000, 4000)
    assert found.too_large == []


def test_work_whose_message_was_deleted_is_dropped(emptied_database: str, store: Store) -> None:
    """A DELETE by hand leaves no claim behind that would take up room for ever."""
    gone, kept = commit_rows(emptied_database, 2)
    with psycopg.connect(emptied_database) as connection:
        connection.execute("DELETE FROM outbox.message WHERE message_id = %s", [gone])

    found = fetch(store, lease(store))

    assert [m.message_id for m in found.messages] == [kept]
    assert len(found.orphans) == 1
    assert store.drop_orphans(found.orphans) == 1
    settle(store, found.messages)
    assert lease(store, number=2) == []


def test_work_moved_to_another_slot_is_given_back(emptied_database: str, store: Store) -> None:
    """Retention moved the message between claim and fetch: the next claim finds it."""
    (message_id,) = commit_rows(emptied_database)
    rows = lease(store)
    with psycopg.connect(emptied_database) as connection:
        connection.execute("UPDATE outbox.message SET slot = (slot + 1) % 16")
        connection.execute("UPDATE outbox.ready SET slot = (slot + 1) % 16")

    found = fetch(store, rows)

    assert found.messages == []
    assert store.drop_orphans(found.orphans) == 0
    assert [m.message_id for m in claim(store, number=2)] == [message_id]


def an_old_message(connection: psycopg.Connection[Any], message_id: str) -> int:
    """Make it older than what retention remembers; returns the slot that it has to itself."""
    connection.execute(
        "UPDATE outbox.message SET slot = (slot + 3) %% 16, created_at = now() - interval '3 days'"
        " WHERE message_id = %s",
        [message_id],
    )
    row = connection.execute(
        "UPDATE outbox.ready r SET slot = m.slot FROM outbox.message m"
        " WHERE m.id = r.id AND m.message_id = %s RETURNING m.slot",
        [message_id],
    ).fetchone()
    assert row is not None
    return int(row[0])


def alter(connection: psycopg.Connection[Any], what: str) -> None:
    """Change what belongs to the table of messages."""
    connection.execute(f"ALTER TABLE outbox.message {what}".encode())


def detach(connection: psycopg.Connection[Any], slot: int) -> None:
    """Take the slot away at once."""
    alter(connection, f"DETACH PARTITION outbox.message_{slot}")


def begin_to_detach(connection: psycopg.Connection[Any], slot: int) -> None:
    """Take it away for later transactions alone: an earlier one still reads it."""
    with psycopg.connect(connection.info.dsn, password=connection.info.password) as reader:
        reader.execute("SELECT FROM outbox.message LIMIT 1")
        connection.execute("SET statement_timeout = '500ms'")
        with pytest.raises(errors.QueryCanceled):
            alter(connection, f"DETACH PARTITION outbox.message_{slot} CONCURRENTLY")
    connection.execute("RESET statement_timeout")


def finish_detaching(connection: psycopg.Connection[Any], slot: int) -> None:
    """The earlier transaction has ended."""
    alter(connection, f"DETACH PARTITION outbox.message_{slot} FINALIZE")


@pytest.mark.parametrize("at_once", [True, False], ids=["detached", "being detached"])
def test_work_of_a_detached_slot_waits(database: str, store: Store, at_once: bool) -> None:
    """Nobody has deleted its message: once it is attached again, it is published, however old."""
    old, new = commit_rows(database, 2)
    with psycopg.connect(database, autocommit=True) as connection:
        slot = an_old_message(connection, old)
        (detach if at_once else begin_to_detach)(connection, slot)

        found = fetch(store, lease(store))

        assert [m.message_id for m in found.messages] == [new]
        assert store.park_detached(found.orphans, delay=0) == 1
        assert store.drop_orphans(found.orphans) == 0
        settle(store, found.messages)
        connection.execute("SELECT outbox.purge('1 day')")
        if not at_once:
            finish_detaching(connection, slot)
        alter(connection, f"ATTACH PARTITION outbox.message_{slot} FOR VALUES IN ({slot})")

    assert ids_in(database, "sent") == {new}
    assert store.promote(10) == 1
    assert [m.message_id for m in claim(store, number=2)] == [old]


def test_work_of_a_slot_detached_after_that_is_not_dropped(database: str, store: Store) -> None:
    """Its message was not found, and is not to be seen by now: it is not taken for deleted."""
    (old,) = commit_rows(database)
    with psycopg.connect(database, autocommit=True) as connection:
        slot = an_old_message(connection, old)
        rows = lease(store)
        detach(connection, slot)
        held = [Held(row.id, row.slot, 1) for row in rows]

        assert store.drop_orphans(held) == 0
        alter(connection, f"ATTACH PARTITION outbox.message_{slot} FOR VALUES IN ({slot})")

    assert [m.message_id for m in claim(store, number=2)] == [old]

"""What is fetched is what was inserted, and no more of it at a time than there is room for."""

from typing import Any

import psycopg
import pytest

from outbox_relay.core.message import Held
from outbox_relay.postgres import store as store_module
from outbox_relay.postgres.store import Store
from tests.fixtures.rows import commit_rows
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

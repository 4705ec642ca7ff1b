"""The demo's proof fails when any number is off."""

from typing import LiteralString

import pytest

from demo.customers import Memory, Order
from demo.progress import Numbers
from demo.proof import compare
from shop.database import TABLES, Connection

QUIET = Numbers(pending=0, scheduled=0, dead=0, sent=9, executed=8, duplicates=1)

KEPT = {"reservation": 2, "shipment": 1, "invoice": 1, "email": 1, "notification": 2, "gift": 0}
MEMORY = Memory(
    committed=[Order("kept", KEPT, taken_back=1)],
    rolled_back=[Order("taken", {**KEPT, "gift": 1})],
)

RIGHT = """
INSERT INTO shop.orders (id, customer) VALUES ('kept', 'anna'), ('somebody else''s', 'bob');
INSERT INTO shop.reservation VALUES ('kept', 'lamp'), ('kept', 'atlas');
INSERT INTO shop.shipment VALUES ('kept', 2);
INSERT INTO shop.invoice (order_id) VALUES ('kept'), ('somebody else''s');
INSERT INTO shop.email VALUES ('kept', 'Invoice 1');
INSERT INTO shop.notification VALUES ('kept', 'sms'), ('kept', 'push');
"""


@pytest.fixture
def shop(
    connection: Connection,
) -> Connection:
    """A shop in which one order was committed, and everything happened as it should."""
    connection.execute(TABLES)
    connection.execute(RIGHT)
    return connection


def test_it_holds_when_all_is_as_remembered(shop: Connection) -> None:
    """Rows of other people's orders do not count."""
    proof = compare(shop, MEMORY, QUIET)

    assert proof.holds
    assert "executed exactly once" in proof.sentence()


@pytest.mark.parametrize(
    ("accident", "column"),
    [
        ("DELETE FROM shop.email", "lost"),
        ("INSERT INTO shop.shipment VALUES ('kept', 2)", "twice"),
        ("UPDATE shop.notification SET channel = 'sms'", "lost"),
        ("UPDATE shop.notification SET channel = 'sms'", "twice"),
        ("INSERT INTO shop.invoice (order_id) VALUES ('taken')", "unexpected"),
        ("INSERT INTO shop.gift VALUES ('kept')", "unexpected"),
        ("INSERT INTO shop.orders (id, customer) VALUES ('taken', 'eve')", "unexpected"),
        ("DELETE FROM shop.orders", "lost"),
    ],
)
def test_it_fails_when_one_number_is_off(
    shop: Connection, accident: LiteralString, column: str
) -> None:
    """A task lost, run twice, or run although its transaction or savepoint rolled back."""
    shop.execute(accident)

    proof = compare(shop, MEMORY, QUIET)

    assert not proof.holds
    assert [getattr(line, column) for line in proof.lines if not line.holds] == [1]


@pytest.mark.parametrize("left", ["pending", "scheduled", "dead"])
def test_it_fails_when_something_is_left(shop: Connection, left: str) -> None:
    """A message that was never sent is not proven to be executed once."""
    numbers = Numbers(**{**dict.fromkeys(Numbers.__slots__, 0), left: 1})

    assert not compare(shop, MEMORY, numbers).holds


def test_nothing_proves_nothing(shop: Connection) -> None:
    """A run without orders is no success."""
    assert not compare(shop, Memory(), QUIET).holds

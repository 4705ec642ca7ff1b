"""Relays that are not set alike are noticed, by what each says of itself without any value."""

from typing import Any

import psycopg
import pytest

from outbox_relay.configuration import from_environment
from outbox_relay.core.finding import Level
from outbox_relay.operator.doctor.relays import judge
from outbox_relay.operator.identity import Identity
from outbox_relay.operator.status import RelaySeen
from tests.fixtures.broker import Broker
from tests.fixtures.programs import RelayFactory
from tests.relay.conftest import Doctor, Outbox, finding

USUAL = {
    "OUTBOX_DATABASE_URL": "postgresql://u:db-password@h/shop",
    "OUTBOX_BROKER_URL": "amqp://guest:password@rabbit-1:5672/shop;amqp://guest:password@rabbit-2/shop",
}


def identity(**environment: str) -> Identity:
    """Of a relay with these settings beside the usual ones."""
    return Identity.of(from_environment({**USUAL, **environment}))


def seen(*identities: Identity) -> list[RelaySeen]:
    """Relays as status sees them."""
    return [RelaySeen(n, "relay", None, None, str(each)) for n, each in enumerate(identities, 1)]


def test_a_name_fits_and_is_read_back() -> None:
    """In the 63 bytes that Postgres keeps; another program's name says nothing."""
    for name in (str(identity()), identity().seat):
        assert len(name) <= 63
        assert Identity.parse(name) == identity()
    for other in ("outbox-relay", "outbox-relay retention", "outbox-relay-cli", "psql"):
        assert Identity.parse(other) is None


def test_no_secret_is_in_it() -> None:
    """A password alone makes no difference, so no hash tells of it."""
    other = identity(
        OUTBOX_BROKER_URL=USUAL["OUTBOX_BROKER_URL"].replace("password", "another"),
        OUTBOX_BROKER_TRANSPORT_OPTIONS='{"sentinel_kwargs": {"password": "x"}}',
    )

    assert other == identity()


@pytest.mark.parametrize(
    ("environment", "words"),
    [
        ({"OUTBOX_BROKER_URL": "amqp://guest@rabbit-3/shop"}, "same place"),
        ({"OUTBOX_BROKER_URL": "amqp://guest@rabbit-1:5672/other"}, "same place"),
        ({"OUTBOX_BROKER_TRANSPORT_OPTIONS": '{"global_keyprefix": "shop:"}'}, "same place"),
        ({"OUTBOX_MAX_ATTEMPTS": "3"}, "OUTBOX_MAX_ATTEMPTS"),
        ({"OUTBOX_DECLARE": "never"}, "OUTBOX_DECLARE"),
        ({"OUTBOX_RETENTION": "1d"}, "OUTBOX_RETENTION"),
        ({"OUTBOX_ALLOW_EXCHANGES": "amq.default"}, "OUTBOX_ALLOW_EXCHANGES"),
        ({"OUTBOX_ALLOW_CONTENT_TYPES": "*"}, "OUTBOX_ALLOW_CONTENT_TYPES"),
        ({"OUTBOX_ALLOW_RESERVED": "CC"}, "OUTBOX_ALLOW_RESERVED"),
        ({"OUTBOX_REDIS_CONFIRM": "fsync"}, "OUTBOX_REDIS_CONFIRM"),
    ],
    ids=str,
)
def test_a_difference_is_named(environment: dict[str, str], words: str) -> None:
    """Which variable, of all that decide what becomes of a message; and never its value."""
    usual = identity()

    (found,) = judge(seen(usual, identity(**environment), usual), usual, knows_broker=True)

    assert found.level is Level.WARN
    assert words in found.text
    assert all(value not in found.text for value in environment.values())


def test_what_only_makes_it_faster_may_differ() -> None:
    """A larger batch decides nothing; nor does the order in which brokers are tried."""
    urls = reversed(USUAL["OUTBOX_BROKER_URL"].split(";"))
    other = identity(OUTBOX_BATCH_SIZE="100", OUTBOX_BROKER_URL=";".join(urls))

    assert judge(seen(identity(), other), identity(), knows_broker=True) == []


def test_relays_of_another_schema_are_none_of_these() -> None:
    """Two outboxes of one database may well have two brokers."""
    other = identity(OUTBOX_SCHEMA="billing", OUTBOX_BROKER_URL="amqp://elsewhere")

    assert judge(seen(identity(), other), identity(), knows_broker=True) == []


def test_another_version_and_another_place_are_said() -> None:
    """A roll-out that has stopped half-way; and a doctor who examines the wrong broker."""
    old: Any = Identity(
        "0.0.9", *(getattr(identity(), x) for x in ("schema", "broker", "settings"))
    )
    here = identity(OUTBOX_BROKER_URL="amqp://elsewhere")

    versions, place = judge(seen(identity(), old), here, knows_broker=True)

    assert "0.0.9 (pid 2)" in versions.text
    assert "another place than the broker that is examined" in place.text
    assert len(judge(seen(identity(), old), here, knows_broker=False)) == 1


def test_doctor_sees_two_relays_that_differ(
    doctor: Doctor, outbox: Outbox, relay: RelayFactory, database: str, broker: Broker
) -> None:
    """Real ones, which are counted as before; their names hold no password."""
    for attempts in ("3", "10"):
        relay(
            OUTBOX_DATABASE_URL=database,
            OUTBOX_BROKER_URL=broker.url,
            OUTBOX_MAX_ATTEMPTS=attempts,
        )

    answer = doctor()

    assert "relays: 2 connected" in answer.out
    assert "OUTBOX_MAX_ATTEMPTS differ" in finding(answer, "warn", "relays")
    with psycopg.connect(database) as connection:
        names = connection.execute("SELECT application_name FROM pg_stat_activity").fetchall()
    assert not any("guest" in name or "amqp" in name for (name,) in names if name)

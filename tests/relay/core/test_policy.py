"""What rows may ask for: plain data, open exchanges, no reserved names. The rest is dead, unread.

The relay takes no body apart, whatever it is; what is tested of workers is in docs/security.md.
"""

import json
import pickle
from pathlib import Path

import psycopg
import pytest
from hypothesis import given
from hypothesis import strategies as st

from outbox_relay.broker.amqp.encode import Encoder
from outbox_relay.broker.amqp.settings import ALLOW_RESERVED, RESERVED, reserved_but
from outbox_relay.broker.entities import described
from outbox_relay.core.message import Reason
from outbox_relay.core.policy import Policy
from outbox_relay.errors import Denied, SettingsError
from outbox_relay.settings.names import Names
from outbox_relay.settings.table import ALLOW_CONTENT_TYPES, ALLOW_EXCHANGES
from tests.fixtures.broker import Broker
from tests.fixtures.programs import RelayFactory
from tests.fixtures.rows import commit_rows, states
from tests.fixtures.waiting import wait_until
from tests.relay.messages import a_message, messages
from tests.relay.settings.test_settings import read

PICKLE = "application/x-python-serialize"
YAML = "application/x-yaml"

PLAIN_DATA, ANY = ALLOW_CONTENT_TYPES.initial, ALLOW_EXCHANGES.initial

#: An open exchange that hands what it cannot route to a closed one.
FORWARDS = {"name": "events.a", "arguments": {"alternate-exchange": "b"}}


def denied(policy: Policy, **columns: object) -> str | None:
    """What the policy says against a message, if anything."""
    allowed, refused = policy.sort([a_message(**columns)])
    assert len(allowed) + len(refused) == 1
    return refused[0].detail if refused else None


@pytest.mark.parametrize("content_type", [PICKLE, YAML, "Application/X-YAML; charset=utf-8"])
def test_code_in_disguise_is_denied_by_default(content_type: str) -> None:
    """Unpacking a pickle runs what is in it, and YAML may; the reason names the way out."""
    detail = denied(Policy(PLAIN_DATA, ANY), content_type=content_type)

    assert detail is not None
    assert "OUTBOX_ALLOW_CONTENT_TYPES" in detail


def test_what_kombu_sends_otherwise_passes() -> None:
    """Every other serialiser of kombu's, raw bytes, text, and the usual formats of events."""
    policy = Policy(PLAIN_DATA, ANY)
    usual = {"application/json", "application/x-msgpack", "application/data", "text/plain", ""}
    usual |= {"application/json; charset=utf-8", "application/xml", "application/protobuf"}
    usual |= {"application/cloudevents+json", "avro/binary", "application/octet-stream"}

    assert {name: why for name in usual if (why := denied(policy, content_type=name))} == {}


@given(st.text(max_size=30))
def test_an_unknown_content_type_is_denied_or_listed(name: str) -> None:
    """It is a list of what may pass: whatever is not on it does not."""
    listed = not name or name.partition(";")[0].strip().lower() in PLAIN_DATA

    assert (denied(Policy(PLAIN_DATA, ANY), content_type=name) is None) == listed


def test_a_bad_neighbour_is_sorted_out() -> None:
    """Only the row itself is refused, in the order of the others."""
    batch = messages(3)
    batch[1] = batch[1]._replace(content_type=PICKLE)

    allowed, refused = Policy(PLAIN_DATA, ANY).sort(batch)

    assert allowed == [batch[0], batch[2]]
    assert [(r.message, r.reason) for r in refused] == [(batch[1], Reason.DENIED)]


@pytest.mark.parametrize(
    ("exchange", "declare", "closed"),
    [
        ("", [], None),
        ("events.orders", [], None),
        ("audit", [], "'audit'"),
        ("", [{"kind": "queue", "name": "q"}], None),
        ("", [{"kind": "queue", "name": "q", "exchange": {"name": "audit"}}], "'audit'"),
        ("", [{"kind": "queue", "name": "q", "bindings": [{"exchange": {"name": "a"}}]}], "'a'"),
        ("", [{"kind": "exchange", "name": "audit", "type": "fanout"}], "'audit'"),
        (
            "",
            [{"kind": "queue", "name": "q", "queue_arguments": {"x-dead-letter-exchange": "a"}}],
            "'a'",
        ),
        (
            "",
            [{"kind": "exchange", "name": "events.a", "arguments": {"alternate-exchange": "b"}}],
            "'b'",
        ),
        (
            "",
            [{"kind": "queue", "name": "q", "exchange": FORWARDS}],
            "'b'",
        ),
        (
            "",
            [{"kind": "queue", "name": "q", "bindings": [{"exchange": FORWARDS}]}],
            "'b'",
        ),
    ],
)
def test_exchanges_can_be_closed(exchange: str, declare: object, closed: str | None) -> None:
    """To publish to, to declare, to bind to, and to forward to."""
    policy = Policy(PLAIN_DATA, Names.parse("amq.default, events.*"))

    detail = denied(policy, exchange=exchange, declare=json.dumps(declare))

    if closed is None:
        assert detail is None
    else:
        assert detail == f"exchange {closed} is not among OUTBOX_ALLOW_EXCHANGES"


@pytest.mark.parametrize(
    "declare",
    [
        [{"kind": "queue", "name": "q", "queue_arguments": 5}],
        [{"kind": "exchange", "name": "events.a", "arguments": 5}],
        [{"kind": "exchange", "name": "audit"}, {"kind": "queue", "queue_arguments": "x"}],
        [{"kind": "queue", "name": "q", "exchange": {"name": 5}}],
    ],
)
def test_a_declaration_that_makes_no_sense_opens_nothing(declare: object) -> None:
    """It is left to those who declare, who can read none of it, and so declare none of it."""
    policy = Policy(PLAIN_DATA, Names.parse("amq.default, events.*"))

    assert denied(policy, declare=json.dumps(declare)) is None
    with pytest.raises(ValueError, match="declare cannot be read"):
        described(json.dumps(declare))


def test_the_default_exchange_is_one_of_them() -> None:
    """A relay of events need not be one that reaches every queue by its name."""
    policy = Policy(PLAIN_DATA, Names.parse("events.*"))

    assert denied(policy) == "exchange 'amq.default' is not among OUTBOX_ALLOW_EXCHANGES"
    assert denied(policy, exchange="events.a") is None


@pytest.mark.parametrize(
    ("column", "name"), [("headers", "CC"), ("headers", "BCC"), ("properties", "user_id")]
)
def test_reserved_names_are_denied(column: str, name: str) -> None:
    """RabbitMQ routes by CC and BCC as well, and a user_id is the relay's, not the row's."""
    message = a_message(**{column: json.dumps({name: "x"})})

    with pytest.raises(Denied, match="OUTBOX_ALLOW_RESERVED"):
        Encoder(131_072, RESERVED).frames(message, 1, 0.0)

    assert Encoder(131_072, reserved_but(name)).frames(message, 1, 0.0)


@pytest.mark.parametrize(
    "columns",
    [
        {"headers": '{"user_id": 7, "cc": 1, "stamps": {"CC": ["x"]}}'},
        {"properties": '{"reply_to": "rpc", "user_id": null}'},
    ],
)
def test_what_only_looks_reserved_passes(columns: dict[str, str]) -> None:
    """An application's own header, a stamp, and Celery's reply_to mean nothing more to a broker."""
    assert Encoder(131_072, RESERVED).frames(a_message(**columns), 1, 0.0)


def test_the_settings_are_read() -> None:
    """Lists of names; what makes no sense stops the start."""
    settings = read(
        OUTBOX_ALLOW_CONTENT_TYPES="application/json, text/*",
        OUTBOX_ALLOW_EXCHANGES="amq.default",
        OUTBOX_ALLOW_RESERVED="CC,BCC",
    )

    assert "text/plain" in settings.allow_content_types
    assert PICKLE not in settings.allow_content_types
    assert "events" not in settings.allow_exchanges
    assert settings.of(ALLOW_RESERVED) == {"user_id"}
    with pytest.raises(SettingsError, match="OUTBOX_ALLOW_RESERVED='Cc'"):
        read(OUTBOX_ALLOW_RESERVED="Cc")
    with pytest.raises(SettingsError, match="OUTBOX_ALLOW_EXCHANGES"):
        read(OUTBOX_ALLOW_EXCHANGES=",")


class Bomb:
    """Unpickled, it leaves a mark."""

    def __init__(self, mark: Path) -> None:
        self.mark = mark

    def __reduce__(self) -> tuple[object, ...]:
        return (Path.touch, (self.mark,))


def test_a_pickle_is_dead_until_it_is_allowed(
    relay: RelayFactory, database: str, broker: Broker, tmp_path: Path
) -> None:
    """Its neighbours go; it is never unpacked; allowed and retried, it goes as it was written."""
    broker.declare("celery")
    bomb = pickle.dumps(Bomb(tmp_path / "exploded"))
    (refused,) = commit_rows(database, body=bomb, content_type=PICKLE, content_encoding="binary")
    commit_rows(database, 2)
    urls = {"OUTBOX_DATABASE_URL": database, "OUTBOX_BROKER_URL": broker.url}
    strict = relay(**urls)
    wait_until(lambda: states(database)["dead"] == 1, 30, "the pickle to be dead")
    wait_until(lambda: states(database)["sent"] == 2, 30, "its neighbours to be sent")
    strict.stop()
    with psycopg.connect(database) as connection:
        row = connection.execute("SELECT last_error FROM outbox.dead").fetchone()
        connection.execute("SELECT outbox.retry(%s)", [refused])

    assert row is not None
    assert row[0].startswith(f"denied: content type '{PICKLE}' is not among OUTBOX_ALLOW_CONTENT")

    relay(**urls, OUTBOX_ALLOW_CONTENT_TYPES="*")
    wait_until(lambda: states(database)["sent"] == 3, 30, "the pickle to be sent")

    assert bomb in [message.body for message in broker.take_all("celery")]
    assert not (tmp_path / "exploded").exists()

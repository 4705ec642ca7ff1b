"""A real relay, a real broker and a collector that decodes what it is sent."""

import json
from typing import Any

import psycopg
import pytest

from tests.fixtures.broker import Broker, frozen_queue
from tests.fixtures.otlp import Collector, Seen
from tests.fixtures.programs import Relay, RelayFactory
from tests.fixtures.rows import commit_rows, states
from tests.fixtures.waiting import wait_until

SECONDS = 30.0
SECRET = "4111-1111-1111-1111"


def trace(number: int) -> str:
    """The id of a trace."""
    return f"{number:032x}"


def headers(number: int = 1, *, sampled: bool = True, **others: Any) -> str:
    """Those of a message that the span `number` of the trace `number` sent."""
    traceparent = f"00-{trace(number)}-{number:016x}-0{int(sampled)}"
    own = {"task": "shop.bill", "argsrepr": f"({SECRET},)", **others}
    return json.dumps({**own, "traceparent": traceparent, "tracestate": "vendor=1"})


@pytest.fixture
def traced(relay: RelayFactory, database: str, collector: Collector) -> Any:
    """Start a relay that traces: ``traced(broker_url, OUTBOX_…=…)``."""

    def start(broker_url: str, **environment: str) -> Relay:
        return relay(
            OUTBOX_DATABASE_URL=database,
            OUTBOX_BROKER_URL=broker_url,
            OUTBOX_TRACING="on",
            **{**collector.environment(), **environment},
        )

    return start


def test_a_wait_and_an_attempt_are_children_of_the_sender(
    traced: Any, database: str, broker: Broker, collector: Collector
) -> None:
    """With the message's id, its destination and its size, as the conventions have them."""
    broker.declare("mail")
    body = b'[["' + SECRET.encode() + b'"], {}, {}]'
    (message_id,) = commit_rows(database, routing_key="mail", headers=headers(7), body=body)
    traced(broker.url)
    (attempt,) = collector.wait_for("publish")
    (wait,) = collector.wait_for("wait in outbox")
    for span in (attempt, wait):
        assert (span.trace_id, span.parent_id) == (trace(7), f"{7:016x}")
        assert (span.service, span.span.trace_state) == ("outbox-relay", "vendor=1")
        assert span.attributes["messaging.message.id"] == message_id
    assert (attempt.name, attempt.kind, attempt.failed) == ("publish mail", "CLIENT", False)
    assert attempt.attributes == {
        "messaging.system": "rabbitmq",
        "messaging.operation.name": "publish",
        "messaging.operation.type": "send",
        "messaging.destination.name": "mail",
        "messaging.rabbitmq.destination.routing_key": "mail",
        "messaging.message.id": message_id,
        "messaging.message.body.size": len(body),
        "outbox.task": attempt.attributes["outbox.task"],
        "outbox.attempt": 1,
    }
    assert wait.span.end_time_unix_nano <= attempt.span.start_time_unix_nano
    assert not any(SECRET.encode() in each for each in collector.raw)


def test_messages_go_out_as_they_came(
    traced: Any, database: str, broker: Broker, collector: Collector
) -> None:
    """The headers are what they were, so that the worker's span is a child of the sender's."""
    broker.declare("mail")
    own = json.loads(headers(7)) | {"sentry-trace": "a-b-1", "baggage": "user=1"}
    commit_rows(database, routing_key="mail", headers=json.dumps(own))
    traced(broker.url)
    collector.wait_for("publish")
    (received,) = broker.take_all("mail")
    assert received.headers == own


def test_a_batch_has_a_span_that_links_to_all_who_sent(
    traced: Any, database: str, broker: Broker, collector: Collector
) -> None:
    """In a trace of its own; each attempt links to it. Of the others, nothing is exported."""
    broker.declare("mail")
    with psycopg.connect(database) as connection:  # one commit, so that one claim takes them
        for number in (1, 2, 3):
            _insert(connection, headers(number))
        for number in (4, 5):
            _insert(connection, headers(number, sampled=False))
        _insert(connection, "{}")
    traced(broker.url)
    attempts = collector.wait_for("publish mail", 3)
    (batch,) = collector.wait_for("publish batch")
    assert batch.attributes["messaging.batch.message_count"] == 6
    assert batch.links == {f"{number:016x}" for number in (1, 2, 3)}
    assert (batch.parent_id, batch.kind) == ("", "CLIENT")
    assert {each.trace_id for each in attempts} == {trace(number) for number in (1, 2, 3)}
    assert all(each.links == {batch.span_id} for each in attempts)
    collector.wait_for("wait in outbox", 3)
    assert len(collector.seen) == 7


def _insert(connection: psycopg.Connection[Any], text: str) -> None:
    connection.execute(
        "INSERT INTO outbox.message (message_id, task, routing_key, headers, body, content_type,"
        " content_encoding) VALUES (gen_random_uuid(), 'shop.bill', 'mail', %s, '[]',"
        " 'application/json', 'utf-8')",
        (text,),
    )


def test_a_refusal_is_an_event_and_an_error(
    traced: Any, database: str, broker: Broker, collector: Collector
) -> None:
    """With its reason and with what became of the message; the next attempt is a span again."""
    commit_rows(database, routing_key="nowhere", headers=headers(3))
    traced(broker.url, OUTBOX_MAX_ATTEMPTS="2", OUTBOX_DECLARE="never")
    first, second = _in_order(collector.wait_for("publish nowhere", 2))
    assert first.failed
    assert first.attributes["error.type"] == "unroutable"
    assert first.events["outbox.refused"] == {
        "outbox.reason": "unroutable",
        "outbox.state": "retry",
    }
    assert second.attributes["outbox.attempt"] == 2
    assert second.events["outbox.refused"]["outbox.state"] == "dead"
    first_wait, second_wait = _in_order(collector.wait_for("wait in outbox", 2))
    assert second_wait.span.start_time_unix_nano >= first_wait.span.end_time_unix_nano
    assert second_wait.seconds > 0.3  # the pause after a refusal, and not since the commit


def _in_order(spans: list[Seen]) -> list[Seen]:
    return sorted(spans, key=lambda each: each.span.start_time_unix_nano)


def test_a_replay_is_an_event(
    traced: Any, database: str, broker: Broker, collector: Collector
) -> None:
    """In the same trace, and without a wait that would begin at the commit of long ago."""
    broker.declare("mail")
    (message_id,) = commit_rows(database, routing_key="mail", headers=headers(4))
    traced(broker.url)
    collector.wait_for("publish")
    wait_until(lambda: states(database)["sent"] == 1, SECONDS, "the receipt")
    with psycopg.connect(database) as connection:
        connection.execute("SELECT pg_sleep(0.3)")  # what is younger is taken for new
        connection.execute("SELECT outbox.replay_message(%s)", (message_id,))
    _, again = _in_order(collector.wait_for("publish", 2))
    assert (again.trace_id, again.failed) == (trace(4), False)
    assert 0 <= again.events["outbox.replayed"]["outbox.sent_seconds_ago"] < SECONDS
    assert len(collector.named("wait in outbox")) == 1


def test_a_lost_connection_is_an_event(
    traced: Any, database: str, broker: Broker, collector: Collector
) -> None:
    """The broker may have what was in flight: it is no refusal, and the next attempt is another."""
    broker.declare("mail")
    commit_rows(database, routing_key="mail", headers=headers(6))
    with frozen_queue(broker, "mail"):
        running = traced(broker.url)
        wait_until(lambda: "in_flight_messages 1.0" in running.metrics(), SECONDS, "one in flight")
        broker.node.ctl("close_all_connections", "--vhost", broker.vhost, "by a test")
        (lost,) = collector.wait_for("publish mail")
    again = _in_order(collector.wait_for("publish mail", 2))[-1]
    assert (lost.failed, lost.attributes["error.type"]) == (True, "connection_lost")
    assert lost.events == {"outbox.unknown": {"outbox.reason": "connection_lost"}}
    assert (again.failed, again.attributes["outbox.attempt"]) == (False, 1)  # no attempt is counted


def test_a_hold_is_an_event_of_the_wait(
    traced: Any, database: str, broker: Broker, collector: Collector
) -> None:
    """A message that is paused was not tried; the wait goes on, and says why."""
    broker.declare("mail")
    with psycopg.connect(database) as connection:
        connection.execute("SELECT outbox.pause(queue => 'mail')")
    commit_rows(database, routing_key="mail", headers=headers(5))
    running = traced(broker.url)
    running.wait_for_event("pauses_changed")
    with psycopg.connect(database) as connection:
        connection.execute("SELECT outbox.resume(queue => 'mail')")
    collector.wait_for("publish")
    (wait,) = collector.named("wait in outbox")
    assert wait.events["outbox.held"] == {"outbox.reason": "paused"}


def test_a_frozen_collector_stops_nothing(
    traced: Any, database: str, broker: Broker, collector: Collector
) -> None:
    """Messages go on; what it does not take is dropped and counted, and the relay ends in time."""
    broker.declare("mail")
    collector.freeze()
    running = traced(
        broker.url,
        OTEL_BSP_MAX_QUEUE_SIZE="20",
        OTEL_BSP_MAX_EXPORT_BATCH_SIZE="10",
        OUTBOX_GRACE_PERIOD="10s",
    )
    commit_rows(database, 200, routing_key="mail", headers=headers(1))
    wait_until(lambda: states(database)["sent"] == 200, SECONDS, "200 sent messages")
    wait_until(lambda: collector.waiting, SECONDS, "a request that gets no answer")
    assert running.stop() == 0
    dropped = sum(told["dropped"] for told in running.events("traces_incomplete"))
    assert dropped >= 200
    assert collector.seen == []


def test_what_no_collector_took_is_counted(
    traced: Any, database: str, broker: Broker, collector: Collector
) -> None:
    """In a metric, and in a line of the log that says where it should have gone."""
    broker.declare("mail")
    running = traced(
        broker.url, OTEL_EXPORTER_OTLP_ENDPOINT="http://127.0.0.1:9", OTEL_EXPORTER_OTLP_TIMEOUT="1"
    )
    commit_rows(database, routing_key="mail", headers=headers(1))
    wait_until(
        lambda: "outbox_spans_dropped_total 2.0" in running.metrics(), SECONDS, "two dropped spans"
    )
    assert running.wait_for_event("traces_incomplete")["reason"]


def test_what_is_left_is_exported_at_the_end(
    traced: Any, database: str, broker: Broker, collector: Collector
) -> None:
    """Though the processor would have waited for an hour."""
    broker.declare("mail")
    running = traced(broker.url, OTEL_BSP_SCHEDULE_DELAY="3600000")
    commit_rows(database, routing_key="mail", headers=headers(1))
    wait_until(lambda: states(database)["sent"] == 1, SECONDS, "a sent message")
    assert running.stop() == 0
    assert len(collector.seen) == 2
    assert not running.events("traces_incomplete")


def test_the_usual_variables_are_followed(
    traced: Any, database: str, broker: Broker, collector: Collector
) -> None:
    """The service's name, and a sampler that samples nothing."""
    broker.declare("mail")
    commit_rows(database, routing_key="mail", headers=headers(1))
    running = traced(broker.url, OTEL_SERVICE_NAME="billing-relay")
    assert collector.wait_for("publish")[0].service == "billing-relay"
    running.stop()
    before = len(collector.seen)
    running = traced(broker.url, OTEL_TRACES_SAMPLER="always_off")
    commit_rows(database, routing_key="mail", headers=headers(2))
    wait_until(lambda: states(database)["sent"] == 2, SECONDS, "a sent message")
    assert running.stop() == 0
    assert len(collector.seen) == before


def test_redis_has_a_name_of_its_own(
    traced: Any, database: str, valkey_url: str, collector: Collector
) -> None:
    """And no attribute of RabbitMQ's."""
    commit_rows(database, routing_key="mail", headers=headers(1))
    traced(valkey_url)
    (attempt,) = collector.wait_for("publish")
    assert attempt.attributes["messaging.system"] == "redis"
    assert not [name for name in attempt.attributes if "rabbitmq" in name]

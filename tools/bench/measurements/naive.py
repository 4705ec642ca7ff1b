"""The relay everybody writes first: select a batch, publish one by one, wait for each confirm.

SELECT ... FOR UPDATE SKIP LOCKED, kombu with confirm_publish, one UPDATE per row, a commit per
batch, on one table with a status column and a partial index.
"""

from typing import Any, Final

import psycopg
from kombu import Connection, Producer

from bench.instruments import cpu
from bench.instruments.run import Run, Stopwatch, timed
from bench.lab import Lab, Unbelievable
from bench.load import messages, queues
from bench.load.queues import Kind, Route

BATCH: Final = 100

TABLE: Final = """
DROP SCHEMA IF EXISTS naive CASCADE;
CREATE SCHEMA naive;
CREATE TABLE naive.message (
    id bigint GENERATED ALWAYS AS IDENTITY PRIMARY KEY,
    status text NOT NULL DEFAULT 'pending',
    routing_key text NOT NULL,
    headers json NOT NULL,
    properties json NOT NULL,
    body bytea NOT NULL,
    content_type text NOT NULL,
    content_encoding text NOT NULL,
    sent_at timestamptz
);
CREATE INDEX pending ON naive.message (id) WHERE status = 'pending';
INSERT INTO naive.message (routing_key, headers, properties, body, content_type, content_encoding)
    SELECT routing_key, headers, properties, body, content_type, content_encoding
    FROM outbox.message ORDER BY id;
"""

CLAIM: Final = """
SELECT id, routing_key, headers, properties, body, content_type, content_encoding
FROM naive.message WHERE status = 'pending' ORDER BY id LIMIT %s FOR UPDATE SKIP LOCKED
"""
MARK: Final = "UPDATE naive.message SET status = 'sent', sent_at = now() WHERE id = %s"


def measure(lab: Lab, kind: Kind, total: int) -> Run:
    """Relay `total` messages to a queue of RabbitMQ's."""
    node = lab.require_rabbitmq()
    routes = queues.fresh(node.url(), kind)
    run = relayed(lab, node.url(), node.process.pid, routes, total)
    queues.await_depth(node.url(), routes, total)
    queues.delete(node.url(), routes)
    return run


def relayed(lab: Lab, url: str, broker_pid: int, routes: list[Route], total: int) -> Run:
    """Relay `total` messages to a broker, one by one."""
    messages.reset(lab)
    messages.fill(lab, total, routes)
    lab.admin.execute(TABLE)
    messages.reset(lab)
    lab.admin.execute("VACUUM (ANALYZE) naive.message")
    pids = {"broker": broker_pid, "postgres": lab.postgres.process.pid}
    with (
        psycopg.connect(lab.database_url) as database,
        Connection(url, transport_options={"confirm_publish": True}) as broker,
    ):
        producer = Producer(broker.channel(), auto_declare=False)
        before = {who: cpu.spent(pid) for who, pid in pids.items()}
        with timed() as watch:
            count = _relay(database, producer, watch)
        spent = {who: cpu.spent(pid) - before[who] for who, pid in pids.items()}
    if count != total:
        raise Unbelievable(f"{count} of {total} messages relayed")
    return Run(total, watch.seconds, {"sender": watch.cpu, **spent}, watch.silence)


def _relay(database: psycopg.Connection[Any], producer: Producer, watch: Stopwatch) -> int:
    relayed = 0
    while rows := database.execute(CLAIM, (BATCH,)).fetchall():
        for id_, routing_key, headers, properties, body, content_type, encoding in rows:
            producer.publish(
                body,
                routing_key=routing_key,
                exchange="",
                headers=headers,
                content_type=content_type,
                content_encoding=encoding,
                **properties,
            )
            database.execute(MARK, (id_,))
            watch.beat()
        database.commit()
        relayed += len(rows)
    return relayed

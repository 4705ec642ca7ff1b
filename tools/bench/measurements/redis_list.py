"""Redis (here Valkey): finished envelopes in pipelines, our relay, and one by one with kombu.

The limit pushes the bytes that kombu itself has put there for the same messages.
"""

import socket
from collections.abc import Sequence
from typing import Any, Final

import redis
from kombu.utils.url import parse_url

from bench.instruments import cpu
from bench.instruments.drain import Target, drain
from bench.instruments.run import Run, timed
from bench.instruments.window import BATCH, RECEIVE_BYTES, SILENCE_SECONDS, publish
from bench.lab import Lab, Unbelievable
from bench.load import messages
from bench.load.queues import Route
from bench.measurements import naive

ROUTES: Final = [Route("redis-0")]
QUEUE: Final = ROUTES[0].queue


class Pushed:
    """Counts the commands that were answered; an error ends the run."""

    def __init__(self) -> None:
        self.count = 0

    def feed(self, data: bytes) -> None:
        """Take note of what arrived: an answer is a line."""
        if not data or b"-" in data:
            raise Unbelievable(f"Redis answered {data[:200]!r}")
        self.count += data.count(b"\n")


def one_by_one(lab: Lab, total: int) -> Run:
    """The naive relay."""
    server = lab.require_valkey()
    with _client(server.url) as client:
        client.flushall()
        run = naive.relayed(lab, server.url, server.process.pid, ROUTES, total)
        _check(client, total)
    return run


def relay(lab: Lab, total: int, relays: int, confirm: str = "memory") -> Run:
    """Our relay, in one or more processes; `confirm` is its OUTBOX_REDIS_CONFIRM."""
    server = lab.require_valkey()
    with _client(server.url) as client:
        client.flushall()
        messages.refill(lab, total, ROUTES)
        settings = {"OUTBOX_REDIS_CONFIRM": confirm}
        run = drain(lab, Target((server.url,) * relays, (server.process.pid,), settings), total)
        _check(client, total)
    return run


def limit(lab: Lab, total: int) -> Run:
    """Pipelined LPUSH of finished envelopes, one command each."""
    server = lab.require_valkey()
    with _client(server.url) as client:
        client.flushall()
        naive.relayed(lab, server.url, server.process.pid, ROUTES, lab.scale.one_by_one)
        blobs = _blobs(client.lrange(QUEUE, 0, lab.scale.one_by_one // BATCH * BATCH - 1))
        client.flushall()
        before = cpu.spent(server.process.pid)
        with _connected(server.url) as sock, timed() as watch:
            publish(sock, blobs, total, Pushed(), watch)
        broker = cpu.spent(server.process.pid) - before
        _check(client, total)
    return Run(total, watch.seconds, {"sender": watch.cpu, "broker": broker}, watch.silence)


def _blobs(envelopes: Sequence[bytes]) -> list[bytes]:
    """A hundred commands each, as Redis reads them."""
    key = QUEUE.encode()
    head = b"*3\r\n$5\r\nLPUSH\r\n$%d\r\n%b\r\n" % (len(key), key)
    commands = [head + b"$%d\r\n%b\r\n" % (len(each), each) for each in envelopes]
    return [b"".join(commands[n : n + BATCH]) for n in range(0, len(commands), BATCH)]


def _client(url: str) -> Any:
    return redis.Redis.from_url(url)


def _connected(url: str) -> socket.socket:
    """A socket that has logged in."""
    parts: dict[str, Any] = parse_url(url)
    sock = socket.create_connection((parts["hostname"], parts["port"]), SILENCE_SECONDS)
    sock.sendall(b"AUTH %b\r\n" % parts["password"].encode())
    if (answer := sock.recv(RECEIVE_BYTES)) != b"+OK\r\n":
        raise Unbelievable(f"Redis answered {answer!r}")
    return sock


def _check(client: Any, total: int) -> None:
    if (found := client.llen(QUEUE)) != total:
        raise Unbelievable(f"{total} messages published, {found} in the list")

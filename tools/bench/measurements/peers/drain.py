"""A peer drains its table: from the first message the queue has to the last row that is gone."""

from pathlib import Path
from subprocess import Popen
from time import monotonic, perf_counter, sleep
from typing import Final

from bench.instruments import cpu
from bench.instruments.run import Run
from bench.lab import Lab, Unbelievable
from bench.load import queues
from bench.load.queues import Kind
from bench.measurements.peers.peer import PATIENCE_SECONDS, Peer, install
from servers.processes import kill_family, spawn, tail

POLL_SECONDS: Final = 0.02
#: The longest until its first message; it may have been refused.
BEGINNING_SECONDS: Final = 30


def measure(lab: Lab, peer: Peer, kind: Kind, total: int) -> Run:
    """Have it drain `total` tasks to a queue of this kind."""
    node = lab.require_rabbitmq()
    routes = queues.fresh(node.url(), kind)
    installed = install(peer, lab, node.url(), routes[0])
    installed.run(*peer.create)
    lab.admin.execute(f"TRUNCATE {peer.table}".encode())
    installed.run(*peer.store)
    lab.admin.execute(peer.copies.replace("{total}", str(total)).encode())
    lab.admin.execute(f"VACUUM (ANALYZE) {peer.table}".encode())
    log = lab.folder / f"{peer.name}.log"
    pids = {"broker": node.process.pid, "postgres": lab.postgres.process.pid}
    relay = spawn(
        [str(installed.python), *peer.relay],
        folder=installed.folder,
        log=log,
        environment=installed.environment,
    )
    pids["sender"] = relay.pid
    try:
        _await_first(node.url(), routes, relay, peer, log)
        before = {who: cpu.spent(pid) for who, pid in pids.items()}
        already, began = queues.depth(node.url(), routes), perf_counter()
        silence = _await_empty(lab, peer, log)
        seconds = perf_counter() - began
        spent = {who: cpu.spent(pid) - before[who] for who, pid in pids.items()}
    finally:
        kill_family(relay)
    queues.await_depth(node.url(), routes, total)
    queues.delete(node.url(), routes)
    return Run(total - already, seconds, spent, silence)


def _await_first(
    url: str, routes: list[queues.Route], relay: Popen[bytes], peer: Peer, log: Path
) -> None:
    deadline = monotonic() + BEGINNING_SECONDS
    while not queues.depth(url, routes):
        if monotonic() > deadline or relay.poll() is not None:
            raise Unbelievable(f"{peer.package} sends nothing: {tail(log)}")
        sleep(POLL_SECONDS)


def _await_empty(lab: Lab, peer: Peer, log: Path) -> float:
    """Wait until its table is empty; the longest time in which it did not shrink."""
    last, since, silence = -1, perf_counter(), 0.0
    while left := lab.value(f"SELECT count(*) FROM {peer.table}"):
        if left != last:
            last, since = left, perf_counter()
        silence = max(silence, perf_counter() - since)
        if silence > PATIENCE_SECONDS:
            raise Unbelievable(f"{peer.package} left {left} messages: {tail(log)}")
        sleep(POLL_SECONDS)
    return silence

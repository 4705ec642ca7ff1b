"""How long an audit takes of many confirmed messages, of which all but fifty have a receipt.

And what share of a core a relay and its database spend to keep such an audit ready: on rounds that
read receipts, on looks at which workers are alive, and on the heartbeats of a hundred workers.
"""

import json
import os
import subprocess
import sys
from collections.abc import Callable, Mapping
from contextlib import closing
from pathlib import Path
from time import perf_counter, process_time, sleep
from typing import Final

from bench.instruments import cpu
from bench.lab import Lab, Unbelievable
from bench.load import messages
from bench.load.queues import Route
from celery_inbox.announcing import BEAT_SECONDS
from outbox_relay.configuration import from_environment
from outbox_relay.loop.knowledge import EVERY as knowledge_every
from outbox_relay.observe.effects import EVERY, REST
from outbox_relay.operator.effects import MAX_EXECUTIONS, SETTLED, Effects
from outbox_relay.postgres.workers import Workers

MISSING: Final = 50
PATIENCE_SECONDS: Final = 1_800

WATCHED: Final = """
INSERT INTO inbox.watched (task, since)
SELECT DISTINCT task, now() - interval '1 day' FROM outbox.message ON CONFLICT DO NOTHING
"""
FINISHED: Final = """
INSERT INTO inbox.receipt (message_id, task, outcome, worker, received_at, finished_at)
SELECT message_id, task, 'succeeded', 'bench', now(), now() FROM outbox.message
ORDER BY id OFFSET %(missing)s
"""
ROUNDS: Final = 5
LOOKS: Final = 100
WORKERS: Final = 100
ANNOUNCE: Final = """
SELECT inbox.announce(%(node)s, json_build_object('queues', ARRAY['celery'], 'tasks', ARRAY(
    SELECT 'shop.task_' || n FROM generate_series(1, 100) n)), 3600)
"""
BEAT: Final = b"SELECT inbox.beat('w1', 3600)"
#: So many tasks have just ended.
ENDED: Final = """
UPDATE inbox.receipt SET noted_at = clock_timestamp() WHERE message_id = ANY (ARRAY(
    SELECT message_id FROM inbox.receipt LIMIT %(count)s))
"""
RECEIPTS: Final = "TRUNCATE inbox.receipt, inbox.watched"


def measure(lab: Lab) -> Mapping[str, Mapping[str, float]]:
    """Messages that the command audits in a second, and that share."""
    messages.reset(lab)
    lab.admin.execute(RECEIPTS.encode())
    messages.fill(lab, lab.scale.audited, (Route("audit"),))
    messages.send_all(lab)
    lab.admin.execute(WATCHED.encode())
    lab.admin.execute(FINISHED.encode(), {"missing": MISSING})
    messages.settle(lab)
    lab.admin.execute(b"VACUUM (ANALYZE) inbox.receipt")
    before = os.times().children_user + os.times().children_system
    began, spent = perf_counter(), cpu.spent(lab.postgres.process.pid)
    done = subprocess.run(
        [str(Path(sys.executable).with_name("outbox-relay")), "audit", "--older-than=0", "--json"],
        env={**os.environ, "OUTBOX_DATABASE_URL": lab.database_url, "OUTBOX_BROKER_URL": ""},
        capture_output=True,
        text=True,
        timeout=PATIENCE_SECONDS,
        check=False,
    )
    seconds = perf_counter() - began
    postgres = cpu.spent(lab.postgres.process.pid) - spent
    children = os.times().children_user + os.times().children_system - before
    if len(_named(done)) != MISSING:
        raise Unbelievable(f"{MISSING} are missing; it said {done.stdout[:200]}{done.stderr[:500]}")
    share = _share(lab)
    lab.admin.execute(RECEIPTS.encode())
    messages.reset(lab)
    return {
        "messages": {
            "rate": lab.scale.audited / seconds,
            "sender": 1e6 * children / lab.scale.audited,
            "postgres": 1e6 * postgres / lab.scale.audited,
        },
        "a relay's rounds": {"share": 100 * share},
    }


def _share(lab: Lab) -> float:
    """The part of a second that rounds, looks and heartbeats take, as often as a relay has them."""

    def seconds(run: Callable[[], object], times: int) -> float:
        before = process_time() + cpu.spent(lab.postgres.process.pid)
        for _ in range(times):
            run()
        return (process_time() + cpu.spent(lab.postgres.process.pid) - before) / times

    settings = from_environment({"OUTBOX_DATABASE_URL": lab.database_url}, need_broker=False)
    effects = Effects(settings, older_than=0.0)
    try:
        effects.round()  # connects, and counts no executions yet
        rounds = 0.0
        for _ in range(ROUNDS):
            lab.admin.execute(ENDED, {"count": MAX_EXECUTIONS})
            sleep(SETTLED)
            began = perf_counter()
            spent = seconds(effects.round, 1)
            pause = max(EVERY, REST * (perf_counter() - began))
            rounds += spent / pause / ROUNDS
    finally:
        effects.close()
    with closing(Workers.open(settings)) as workers:
        for node in range(WORKERS):
            lab.admin.execute(ANNOUNCE, {"node": f"w{node}"})
        looks = seconds(workers.fingerprint, LOOKS)
        beats = seconds(lambda: lab.admin.execute(BEAT), LOOKS)
        lab.admin.execute(b"TRUNCATE inbox.worker")
    return rounds + looks / knowledge_every + beats * WORKERS / BEAT_SECONDS


def _named(done: subprocess.CompletedProcess[str]) -> list[object]:
    try:
        said = json.loads(done.stdout)
    except ValueError:
        return []
    return list(said if isinstance(said, list) else said.get("missing", []))

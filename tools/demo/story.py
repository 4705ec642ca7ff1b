"""The play: customers order while the broker and the relay are killed under them.

Each act ends when what it shows has happened, or fails at a deadline; none waits for a length of
time.
"""

from time import monotonic
from typing import Any

import psycopg
from kombu import Connection as BrokerConnection

from demo.customers import Memory
from demo.progress import Numbers
from demo.stage import Stage, TookTooLong
from shop.app import app

_BACKLOG = 100
# What is on its way is counted, and a slow machine takes long: only standing still is too long.
_CURTAIN_SECONDS = 60.0
_LONGEST_SECONDS = 900.0
_QUEUE = "celery"
# As after a disaster of the broker: what was confirmed is sent once more, with the ids it had.
_REPLAY = "SELECT outbox.replay(%s, clock_timestamp(), %s)"


def perform(stage: Stage) -> Numbers:
    """Play all acts; return the numbers at the end."""
    _open(stage)
    if stage.services.broker.server is not None:
        _kill_broker(stage)
    _kill_relay(stage)
    _replay(stage)
    return _drain(stage)


def _open(stage: Stage) -> None:
    stage.watch(lambda _: stage.relay.is_ready(), "the relay is ready")
    stage.watch(lambda _: stage.worker.is_ready(), "the worker is ready")
    stage.say("relay and worker are up; customers start ordering, one in five changes their mind")
    stage.customers.start()
    stage.watch(lambda now: now.executed >= 2 * _BACKLOG, "tasks are executed")


def _kill_broker(stage: Stage) -> None:
    broker = stage.services.broker
    assert broker.server is not None  # the caller has looked
    broker.server.kill()
    stage.state.broker_up = False
    ordered, killed = len(stage.customers.memory.committed), monotonic()
    stage.say(f"{broker.name} SIGKILLed; customers go on ordering", "bold red")
    stage.watch(lambda now: now.pending >= _BACKLOG, "rows wait in the outbox")
    restart = stage.behind_the_scenes(broker.server.start)
    stage.watch(lambda _: restart.done(), f"{broker.name} is back")
    restart.result()
    stage.state.broker_up = True
    meanwhile = len(stage.customers.memory.committed) - ordered
    down = monotonic() - killed
    stage.say(
        f"{broker.name} is back after {down:.1f} s; {meanwhile} orders were committed meanwhile",
        "bold green",
    )
    stage.watch(lambda now: now.pending < _BACKLOG // 10, "the backlog is published")
    stage.say("the backlog is published")


def _kill_relay(stage: Stage) -> None:
    stage.relay.kill()
    stage.state.relay_up = False
    stage.say(f"relay {stage.relay.pid} SIGKILLed; customers go on ordering", "bold red")
    stage.watch(lambda now: now.pending >= _BACKLOG, "rows wait in the outbox")
    stage.replace_relay()
    stage.state.relay_up = True
    stage.say(f"relay {stage.relay.pid} takes over", "bold green")
    stage.watch(lambda now: now.pending < _BACKLOG // 10, "the backlog is published")
    stage.say("the backlog is published")


def _replay(stage: Stage) -> None:
    stage.customers.stop()
    memory = stage.customers.memory
    stage.say(
        f"customers leave: {len(memory.committed)} orders committed, "
        f"{len(memory.rolled_back)} rolled back"
    )
    tasks, reason = ["shop.tasks.notify"], "on purpose"
    if stage.services.broker.kind == "redis":
        # A message that a worker popped as the connection broke is in no list and no worker: Redis
        # has no acknowledgement, kombu emulates it with a second command.
        tasks = sorted(name for name in app.tasks if name.startswith("shop."))
        reason = "for what Redis's broken connections took along"
    with psycopg.connect(stage.services.database_url) as connection:
        rows = [
            connection.execute(_REPLAY, (stage.progress.since, task)).fetchall()[0]
            for task in tasks
        ]
    replayed = sum(count for (count,) in rows)
    stage.say(f"outbox.replay sends {replayed} messages a second time, {reason}", "bold yellow")


def _drain(stage: Stage) -> Numbers:
    """Wait until nothing is on its way; a number that stays wrong is for the proof to tell."""
    wanted = _tasks(stage.customers.memory)
    with BrokerConnection(stage.services.broker.url) as broker:

        def is_over(now: Numbers) -> bool:
            if now.dead:  # time does not cure it
                return True
            left = now.pending + now.scheduled
            return left == 0 and now.executed >= wanted and _depth(broker) == 0

        try:
            stage.watch(is_over, "everything is executed", _CURTAIN_SECONDS, _LONGEST_SECONDS)
        except TookTooLong as late:
            stage.say(f"{late}", "bold red")
    stage.worker.stop()  # it finishes what it has begun
    for task, reason, count in stage.progress.dead():
        stage.say(f"{count} x {task} is dead: {reason}", "bold red")
    return stage.progress.read()


def _tasks(memory: Memory) -> int:
    return sum(order.tasks for order in memory.committed)


def _depth(broker: BrokerConnection) -> int:
    """How many messages wait in the broker; redelivered duplicates are among them."""
    channel: Any = broker.channel()  # kombu types only what it calls itself
    try:
        return int(channel.queue_declare(_QUEUE, passive=True).message_count)
    except broker.channel_errors:  # Redis has no queue where it has no message
        return 0
    finally:
        channel.close()

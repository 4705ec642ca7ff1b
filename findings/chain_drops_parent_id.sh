#!/usr/bin/env bash
# A chain forgets `parent_id`; a task, a group and a chord keep it, and a chain keeps `root_id`.
#
# Versions: celery 5.7.0, kombu 5.7.0.
# Expected: sent with parent_id=P and root_id=R, as a worker sends what follows a task, the first message
#           says both, whatever kind of canvas it is.
# Happens:  the first task of a chain has parent_id None, also where the chain is a part of a group or of
#           a chord's header.
# Matters:  the parent is how a message is recognised as the continuation of a running task. An outbox
#           that decides by it, and anyone who draws the tree of tasks, takes such a chain for a fresh
#           start.

. "$(dirname "$0")/lib/finding.sh"
packages celery==5.7.0 kombu==5.7.0

python - <<'END'
from celery import Celery, chain, chord, group
from celery.signals import before_task_publish

app = Celery("app", broker="memory://", backend="cache+memory://")
sent = []


@app.task
def add(x, y):
    return x + y


@before_task_publish.connect
def note(headers, **_):
    sent.append((headers["parent_id"], headers["root_id"]))


def lineage(canvas):
    sent.clear()
    canvas.apply_async(parent_id="P", root_id="R")
    return [*sent]


KEPT, DROPPED = ("P", "R"), (None, "R")
EXPECTED = {
    "task": (add.s(1, 1), [KEPT]),
    "group of tasks": (group(add.s(1, 1), add.s(2, 2)), [KEPT, KEPT]),
    "chord": (chord([add.s(1, 1), add.s(2, 2)], add.si(3, 3)), [KEPT, KEPT]),
    "chain": (chain(add.s(1, 1), add.s(2)), [DROPPED]),
    "group of a chain and a task": (group(add.s(1, 1) | add.s(2), add.s(3, 3)), [DROPPED, KEPT]),
    "chord over a chain": (chord([add.s(1, 1) | add.s(2)], add.si(3, 3)), [DROPPED]),
}
for name, (canvas, expected) in EXPECTED.items():
    found = lineage(canvas)
    print(f"{name}: (parent_id, root_id) {found}")
    assert found == expected
END

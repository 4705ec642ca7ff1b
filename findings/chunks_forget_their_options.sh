#!/usr/bin/env bash
# Chunks forget the options that they were set: the tasks go to the default queue, and never expire.
#
# Versions: celery 5.7.0, kombu 5.7.0.
# Expected: add.chunks(calls, 10).set(queue="slow", expires=60) sends as a task, a chain or a group does that
#           was set so, and as chunks do whose apply_async() is given the same options.
# Happens:  chunks.apply_async() makes a group of them and gives it what it was called with; what set() left in
#           the signature's own options is dropped without a word.
# Matters:  outbox= is such an option. Where a database is configured the chunks were stored apart, and survived
#           the rollback of the transaction that was named, until ours replaced chunks.group.

. "$(dirname "$0")/lib/finding.sh"
packages celery==5.7.0 kombu==5.7.0

python - <<'END'
from celery import Celery, group

app = Celery("shop", broker="memory://")


@app.task(name="shop.add")
def add(x, y):
    return x + y


CALLS = [(1, 1), (2, 2)]
SHAPES = {
    "task": lambda: add.s(1, 1),
    "group": lambda: group(add.s(*call) for call in CALLS),
    "starmap": lambda: add.starmap(CALLS),
    "chunks": lambda: add.chunks(CALLS, 1),
}


def sent(send):
    """The queues that messages went to, and whether they expire."""
    send()
    found = set()
    with app.connection_for_read() as connection:
        for queue in ("slow", "celery"):
            simple = connection.SimpleQueue(queue)
            while simple.qsize():
                message = simple.get(timeout=1)
                message.ack()
                found.add((queue, message.headers["expires"] is not None))
    return found


OPTIONS = {"queue": "slow", "expires": 60}
were_set = {name: sent(lambda: make().set(**OPTIONS).apply_async()) for name, make in SHAPES.items()}
were_given = {name: sent(lambda: make().apply_async(**OPTIONS)) for name, make in SHAPES.items()}
print("set():", were_set)
print("apply_async():", were_given)
asked = {("slow", True)}
assert were_given == dict.fromkeys(SHAPES, asked)
assert were_set == dict.fromkeys(SHAPES, asked) | {"chunks": {("celery", False)}}
END

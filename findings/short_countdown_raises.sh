#!/usr/bin/env bash
# With quorum queues, a countdown of less than one second is a ValueError.
#
# Versions: celery 5.7.0, kombu 5.7.0.
# Expected: apply_async(countdown=0.5) sends the task, as it does with classic queues, or at once.
# Happens:  ValueError: countdown must be a positive number. The delay is cut to whole seconds before it
#           is handed to the broker, and none is left. An eta that is half a second away raises as well.
# Matters:  a retry with a short or a random pause fails its task instead, now and then where the pause is
#           random, and only after the queues were made quorum queues.

. "$(dirname "$0")/lib/finding.sh"
packages celery==5.7.0 kombu==5.7.0

python - <<'END'
from datetime import datetime, timedelta, timezone

from celery import Celery
from kombu import Exchange, Queue


def sent(arguments, **delay):
    """Send to a queue with these arguments, as far as the last step."""
    app = Celery("app", broker="amqp://", set_as_current=False)
    app.conf.task_queues = [Queue("q", Exchange("t", "topic"), "k", queue_arguments=arguments)]
    app.conf.task_default_queue = "q"
    app.amqp.send_task_message = lambda *_, **__: None
    try:
        app.send_task("task", **delay)
    except ValueError as error:
        return f"ValueError: {error}"
    return "sent"


for kind in ("classic", "quorum"):
    soon = datetime.now(timezone.utc) + timedelta(seconds=0.5)
    results = [sent({"x-queue-type": kind}, **delay) for delay in ({"countdown": 0.5}, {"eta": soon})]
    print(f"{kind}: countdown=0.5: {results[0]}; eta in half a second: {results[1]}")
    wrong = "ValueError: countdown must be a positive number"
    assert results == (["sent"] * 2 if kind == "classic" else [wrong] * 2)
assert sent({"x-queue-type": "quorum"}, countdown=1.5) == "sent"
END

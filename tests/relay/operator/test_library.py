"""The operator wing is a library: who imports it gets no loop, no broker and no command line."""

import subprocess
import sys


def test_the_operators_library_loads_no_broker_and_no_face() -> None:
    """A web page can be built on it as the command line is, without the loop and its libraries."""
    program = (
        "import sys, outbox_relay.operator.doctor, outbox_relay.operator.listing,"
        " outbox_relay.operator.show, outbox_relay.operator.status, outbox_relay.operator.manage;"
        "print({m for m in sys.modules if m.split('.')[0] in {'amqp', 'kombu', 'redis', 'vine'}"
        " or m.startswith(('outbox_relay.loop', 'outbox_relay.cli', 'outbox_relay.observe'))})"
    )
    done = subprocess.run(
        [sys.executable, "-c", program], capture_output=True, text=True, timeout=30
    )

    assert done.stdout.splitlines()[-1:] == ["set()"], done.stderr

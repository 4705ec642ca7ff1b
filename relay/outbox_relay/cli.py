"""`outbox-relay`: the only place where the parts are put together.

Exit codes: 0 done, 1 the operation found or left a problem, 2 wrong usage or settings.
"""

import argparse
import json
import os
import secrets
import signal
import sys
from collections.abc import Sequence
from contextlib import nullcontext

from outbox_relay import logs
from outbox_relay.brokers import publisher_factory
from outbox_relay.errors import RelayError, SettingsError
from outbox_relay.health import Endpoint, Health
from outbox_relay.metrics import Metrics
from outbox_relay.relay import Relay
from outbox_relay.settings import Settings, from_environment
from outbox_relay.store import Store


def main(argv: Sequence[str] | None = None) -> int:
    """Run one command; an error is one sentence on stderr, never a traceback."""
    arguments = _parser().parse_args(argv)
    try:
        settings = from_environment(os.environ, need_broker=arguments.command == "run")
        logs.configure(settings.log_format, settings.log_level)
        if arguments.command == "run":
            return _run(settings, drain=arguments.drain)
        return _status(settings, as_json=arguments.json)
    except SettingsError as error:
        print(f"outbox-relay: {error}", file=sys.stderr)
        return 2
    except RelayError as error:
        print(f"outbox-relay: {error}", file=sys.stderr)
        return 1


def _parser() -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser(prog="outbox-relay", description=__doc__)
    commands = parser.add_subparsers(dest="command", required=True)
    run = commands.add_parser("run", help="publish until told to stop")
    run.add_argument("--drain", action="store_true", help="publish everything due, then exit")
    status = commands.add_parser("status", help="counts and lag")
    status.add_argument("--json", action="store_true", help="for programs")
    return parser


def _run(settings: Settings, *, drain: bool) -> int:
    metrics, health = Metrics(), Health()
    relay = Relay(
        settings,
        open_store=lambda: _open_store(settings),
        open_publisher=publisher_factory(settings),
        # 31 random bits name this relay, 32 count its claims: no two claims are alike.
        first_lease=secrets.randbits(31) << 32,
        metrics=metrics,
        health=health,
    )
    for number in (signal.SIGTERM, signal.SIGINT):
        signal.signal(number, lambda *_: relay.stop())
    address = settings.http_address
    with Endpoint(address, health, metrics.registry) if address and not drain else nullcontext():
        if drain:
            return 0 if relay.drain() else 1
        relay.run()
        return 0


def _open_store(settings: Settings) -> Store:
    return Store.connect(settings.database_url.read(), settings.schema, settings.statement_timeout)


def _status(settings: Settings, *, as_json: bool) -> int:
    store = _open_store(settings)
    try:
        stats = store.stats()
    finally:
        store.close()
    if as_json:
        print(json.dumps(stats.as_dict()))
    else:
        for name, value in stats.as_dict().items():
            print(f"{name.replace('_', ' '):<24}{value}")
    return 0

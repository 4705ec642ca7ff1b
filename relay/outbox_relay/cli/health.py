"""`health`: asks the relay beside it whether it is ready; what a container's health check runs.

That happens every few seconds, so `__main__` loads this command without the others.
"""

import os
import sys
from argparse import Namespace
from http.client import HTTPConnection, HTTPException
from typing import Final
from urllib.parse import quote

from outbox_relay.cli.command import Command
from outbox_relay.configuration import from_environment
from outbox_relay.errors import SettingsError
from outbox_relay.settings import Settings
from outbox_relay.settings.table import DATABASES_FILE, HTTP_ADDRESS
from outbox_relay.settings.values import Address

TIMEOUT_SECONDS: Final = 3.0
#: A relay that listens everywhere is asked on loopback.
_LOOPBACK: Final = {"0.0.0.0": "127.0.0.1", "::": "::1"}


def command() -> Command:
    """The command."""
    return Command(
        "health",
        "is the relay here ready",
        _health,
        settings=[HTTP_ADDRESS, DATABASES_FILE],
        run_many=_health,
    )


def main() -> int:
    """Run it alone, with the settings of the environment."""
    try:
        return _ask(from_environment(os.environ, need_broker=False).http_address)
    except SettingsError as error:
        print(f"outbox-relay: {error}", file=sys.stderr)
        return 2


def _health(arguments: Namespace, settings: Settings) -> int:
    return _ask(settings.http_address, arguments.outbox)


def _ask(address: Address, outbox: str | None = None) -> int:
    if address is None:
        raise SettingsError("OUTBOX_HTTP_ADDRESS is off: there is nothing to ask")
    host, port = address
    connection = HTTPConnection(_LOOPBACK.get(host, host), port, timeout=TIMEOUT_SECONDS)
    try:
        connection.request("GET", f"/readyz?outbox={quote(outbox)}" if outbox else "/readyz")
        answer = connection.getresponse()
        print(answer.read().decode(errors="replace").strip())
    except (OSError, HTTPException) as error:
        print(f"no relay answers at {host}:{port}: {error}")
        return 1
    finally:
        connection.close()
    return 0 if answer.status == 200 else 1

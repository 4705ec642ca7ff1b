"""The `outbox-console` command, also as `python -m outbox_console`.

    outbox-console             serves the console
    outbox-console password    asks for a password, and prints the hash for the file of people

Exit codes: 0 done, 2 wrong usage or settings, as of the other commands.
"""

import os
import sys
from argparse import ArgumentParser, RawDescriptionHelpFormatter
from collections.abc import Mapping
from getpass import getpass

import uvicorn

from outbox_console import __version__
from outbox_console.app import serve_app
from outbox_console.errors import SettingsError
from outbox_console.people.passwords import hashed
from outbox_console.settings import VARIABLES, Settings, read


def main() -> int:
    """Run it."""
    arguments = _parser().parse_args()
    if arguments.command == "password":
        return _password()
    try:
        settings = read(_merged(os.environ, vars(arguments)))
        app = serve_app(settings)
    except SettingsError as error:
        print(error, file=sys.stderr)
        return 2
    host = f"[{settings.host}]" if ":" in settings.host else settings.host
    address = f"http://{host}:{settings.port}"
    print(f"outbox-console {__version__}: {address} {_who(settings)}", flush=True)
    uvicorn.run(
        app,
        host=settings.host,
        port=settings.port,
        access_log=False,  # addresses hold what people searched for
        log_level="warning",
        server_header=False,
        timeout_graceful_shutdown=2,  # streams end only with those who look
        # A proxy's word for who asks, or how, is believed only where the settings say so.
        proxy_headers=False,
        forwarded_allow_ips="",
    )
    return 0


def _who(settings: Settings) -> str:
    if settings.people_file:
        return "(people sign in with a password)"
    if settings.openid:
        return f"(people sign in with {settings.openid.issuer})"
    if settings.user_header:
        return f"(people are named by {settings.user_header})"
    return f"(on this machine alone, as {settings.role})"


def _parser() -> ArgumentParser:
    parser = ArgumentParser("outbox-console", formatter_class=RawDescriptionHelpFormatter)
    parser.description = "Shows the Celery outbox in a browser, and lets people free what is stuck."
    parser.add_argument("--version", action="version", version=f"outbox-console {__version__}")
    parser.add_argument(
        "command",
        nargs="?",
        choices=("serve", "password"),
        default="serve",
        help="serve the console (the default), or ask for a password and print its hash",
    )
    for name, default, help_ in VARIABLES:
        shown = f"{help_} [{name}{f', default {default}' if default else ''}]"
        parser.add_argument(_flag(name), dest=name, metavar="VALUE", help=shown)
    return parser


def _flag(name: str) -> str:
    short = name.removeprefix("OUTBOX_").removeprefix("CONSOLE_")
    return "--" + short.lower().replace("_", "-")


def _merged(environment: Mapping[str, str], flags: Mapping[str, str | None]) -> dict[str, str]:
    given = {name: value for name, value in flags.items() if value is not None}
    merged = {**environment, **given}
    if "OUTBOX_DATABASE_URL" in given:  # a flag is nearer than a file in the environment
        merged.pop("OUTBOX_DATABASE_URL_FILE", None)
    return merged


def _password() -> int:
    if sys.stdin.isatty():
        password = getpass("Password: ")
        if getpass("Again: ") != password:
            print("They differ.", file=sys.stderr)
            return 2
    else:
        password = sys.stdin.readline().rstrip("\n")
    if len(password) < 8:
        print("A password has at least 8 characters.", file=sys.stderr)
        return 2
    print(hashed(password))
    return 0


if __name__ == "__main__":
    sys.exit(main())

"""Composes the demo and turns its outcome into an exit code: 0 proven, 1 not, 2 wrong settings."""

import os
import shutil
import signal
import sys
from contextlib import ExitStack, suppress
from pathlib import Path

import psycopg

from demo import proof, services, settings, story
from demo.programs import ProgramEnded
from demo.screen import Screen
from demo.settings import SettingsError
from demo.stage import Stage, TookTooLong
from outbox_migrations import MigrationError, grant, upgrade
from servers import ServerMissing, StartFailed
from servers.processes import is_alive
from shop.app import app
from shop.database import TABLES

_FOLDER = Path(__file__).resolve().parents[2] / ".demo"


def main() -> int:
    """Run the demo."""
    signal.signal(signal.SIGTERM, _interrupt)
    screen = Screen()
    try:
        return _run(screen, settings.read(os.environ))
    except KeyboardInterrupt:
        screen.say("interrupted; everything that was started has been stopped", "yellow")
        return 130
    except SettingsError as error:
        print(error, file=sys.stderr)
        return 2
    except (ServerMissing, StartFailed, MigrationError, ProgramEnded, TookTooLong) as error:
        print(f"\n{error}", file=sys.stderr)
        return 1


def _run(screen: Screen, chosen: settings.Settings) -> int:
    with ExitStack() as stack:
        folder = _own_folder()
        stack.callback(shutil.rmtree, folder, ignore_errors=True)
        found = stack.enter_context(services.started(chosen, folder, screen.say))
        upgrade(found.database_url)
        _grant(found.database_url, screen)
        with psycopg.connect(found.database_url) as connection:
            connection.execute(TABLES)
        screen.say("tables: migrated, as `outbox-migrate up` does")
        app.conf.update(result_backend=found.results_url)  # chords register their parts there
        with Stage(found, folder, screen) as stage:
            with screen:
                final = story.perform(stage)
            with psycopg.connect(found.database_url) as connection:
                result = proof.compare(connection, stage.customers.memory, final)
            _show(screen, result)
            if chosen.keep:
                address = stage.console.address
                screen.say(f"it goes on at http://{address} until you press Ctrl-C", "bold")
                with suppress(KeyboardInterrupt):
                    stage.go_on()
    return 0 if result.holds else 1


def _show(screen: Screen, result: proof.Proof) -> None:
    screen.console.print()
    screen.console.print(result.table())
    screen.console.print(result.sentence(), style="bold green" if result.holds else "bold red")


def _grant(database_url: str, screen: Screen) -> None:
    """What the console asks for; a database that is not ours may not let us make roles."""
    try:
        grant(database_url)
    except MigrationError as error:
        screen.say(f"the console will show nothing: {error}", "yellow")


def _own_folder() -> Path:
    """Make a folder for this run, and remove those of runs that were killed."""
    _FOLDER.mkdir(exist_ok=True)
    for folder in _FOLDER.glob("run-*"):
        if not is_alive(int(folder.name.split("-")[1])):
            shutil.rmtree(folder, ignore_errors=True)
    folder = _FOLDER / f"run-{os.getpid()}"
    folder.mkdir()
    return folder


def _interrupt(*_: object) -> None:
    raise KeyboardInterrupt


if __name__ == "__main__":
    code = main()
    sys.stdout.flush()
    # Not sys.exit: Celery's results would try for a minute to unsubscribe from a server long gone.
    os._exit(code)

"""Composes the demo and turns its outcome into an exit code: 0 proven, 1 not, 2 wrong settings."""

import os
import shutil
import signal
import sys
from contextlib import ExitStack
from pathlib import Path

import psycopg

from demo import proof, services, settings, story
from demo.programs import ProgramEnded
from demo.screen import Screen
from demo.settings import SettingsError
from demo.stage import Stage, TookTooLong
from outbox_migrations import MigrationError, upgrade
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
        with psycopg.connect(found.database_url) as connection:
            connection.execute(TABLES)
        screen.say("tables: migrated, as `outbox-migrate up` does")
        app.conf.update(result_backend=found.results_url)  # chords register their parts there
        with screen, Stage(found, folder, screen) as stage:
            final = story.perform(stage)
        with psycopg.connect(found.database_url) as connection:
            result = proof.compare(connection, stage.customers.memory, final)
    screen.console.print()
    screen.console.print(result.table())
    screen.console.print(result.sentence(), style="bold green" if result.holds else "bold red")
    return 0 if result.holds else 1


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

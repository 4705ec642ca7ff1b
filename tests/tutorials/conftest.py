"""A new user's project: written from an official tutorial, then changed as our page says."""

import os
import subprocess
import sys
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from pathlib import Path

import pytest

from outbox_migrations import upgrade
from servers import Valkey
from tests.examples.conftest import EXAMPLES, environment
from tests.fixtures.programs import Program, Relay, RelayFactory, worker_command
from tests.fixtures.rows import states
from tests.fixtures.valkey import OwnValkey
from tests.fixtures.waiting import wait_until

HOW_TO = EXAMPLES.parent / "docs" / "how-to"
DEADLINE = 60.0


@dataclass
class Project:
    """A folder with the user's files, a database, and a broker that is down until it is started."""

    folder: Path
    page: str  # our how-to
    database: str
    broker: Valkey
    start_relay: Callable[..., Relay]
    start_worker: Callable[["Project", str], Program]

    @property
    def environment(self) -> dict[str, str]:
        """What the user's shell has exported."""
        exported = {"BROKER_URL": self.broker.url, "OUTBOX_DATABASE_URL": self.database}
        return environment(self.database) | exported | {"PYTHONPATH": str(self.folder)}

    def write(self, path: str, text: str) -> None:
        """Write a file as the tutorial says."""
        file = self.folder / path
        file.parent.mkdir(parents=True, exist_ok=True)
        file.write_text(text)

    def change(self, path: str, old: str, new: str, *, by_the_page: str = "") -> None:
        """Change a line that is there; `by_the_page` must stand in our how-to."""
        text = (self.folder / path).read_text()
        assert text.count(old) == 1, (path, old)
        assert by_the_page in self.page, by_the_page
        self.write(path, text.replace(old, new))

    def run(self, *arguments: str) -> str:
        """Run Python in the folder; what it printed."""
        done = subprocess.run(
            [sys.executable, *arguments],
            cwd=self.folder,
            env=self.environment,
            capture_output=True,
            text=True,
            timeout=100,
            check=False,
        )
        assert done.returncode == 0, done.stdout + done.stderr
        return done.stdout

    def proves_safe(self, use: str, tasks: int, app: str) -> Program:
        """Use the project while the broker is down; then start it, and wait for a worker's work.

        `use` is Python that uses the project as its users would. Returns the worker.
        """
        self.start_relay("run", wait=False, **self._relay_environment)
        self.run("-c", use)
        assert states(self.database) == {"pending": tasks, "scheduled": 0, "sent": 0, "dead": 0}
        self.broker.start()
        wait_until(lambda: states(self.database)["sent"] == tasks, DEADLINE, "the tasks sent")
        worker = self.start_worker(self, app)
        wait_until(lambda: worker.output().count(" succeeded in ") == tasks, DEADLINE, "the work")
        return worker

    @property
    def _relay_environment(self) -> dict[str, str]:
        return {"OUTBOX_DATABASE_URL": self.database, "OUTBOX_BROKER_URL": self.broker.url}


def pytest_ignore_collect(config: pytest.Config) -> bool | None:
    """Each takes half a minute: only `make test-tutorials`, which names the folder, runs them."""
    return None if any("tutorials" in argument for argument in config.args) else True


@pytest.fixture
def start_worker() -> Iterator[Callable[[Project, str], Program]]:
    """Start `celery -A app worker` as the tutorial does, in the project's folder."""
    started: list[Program] = []

    def start(project: Project, app: str) -> Program:
        argv, folder, surroundings = worker_command(app, project.folder, project.environment)
        paths = os.pathsep.join((str(project.folder), surroundings.get("PYTHONPATH", "")))
        started.append(Program(argv, folder, surroundings | {"PYTHONPATH": paths}))
        return started[-1]

    yield start
    for program in started:
        program.kill()


@pytest.fixture
def project(
    request: pytest.FixtureRequest,
    tmp_path: Path,
    empty_database: str,
    own_valkey: OwnValkey,
    relay: RelayFactory,
    start_worker: Callable[[Project, str], Program],
) -> Project:
    """An empty folder for the tutorial that `page` is named after, and a broker that is down."""
    name: str = request.param
    if not name.startswith("django"):  # which brings its own migrations
        upgrade(empty_database)
    broker = own_valkey()
    broker.stop()
    page = (HOW_TO / f"{name}.md").read_text()
    return Project(tmp_path, page, empty_database, broker, relay, start_worker)

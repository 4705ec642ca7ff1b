"""pytest-celery: its plugin and ours stand side by side; it is not needed to run what was sent.

Its fixtures start broker and workers as containers, in which there is no relay: what is sent
through the outbox does not arrive there. `outbox.run()` needs neither.
"""

import subprocess
import sys
from pathlib import Path

import psycopg
from celery.contrib.testing.worker import start_worker

from celery_outbox import OutboxCelery
from tests.fixtures.programs import CHECKOUT, RelayFactory
from tests.fixtures.rows import states

PROJECT = """
import os
import psycopg
import pytest
from celery_outbox import OutboxCelery

pytest_plugins = ["celery_outbox.testing"]
app = OutboxCelery("shop")

@app.task(name="shop.add")
def add(x, y):
    return x + y

@pytest.fixture
def outbox_target():
    with psycopg.connect(os.environ["DATABASE_URL"]) as connection:
        yield connection
        connection.rollback()

def test_the_task_runs(outbox, outbox_target, request):
    plugin = request.config.pluginmanager.get_plugin("celery")
    assert plugin.__name__ == "pytest_celery.plugin"
    with app.outbox.using(outbox_target):
        add.delay(1, 2)
    outbox.assert_sent(add, args=[1, 2])
    (ran,) = outbox.run()
    assert ran.result == 3
"""


def test_both_plugins(database: str, tmp_path: Path) -> None:
    """What was sent runs in the test, without a container, while pytest-celery is loaded too."""
    (tmp_path / "conftest.py").write_text("")
    (tmp_path / "test_shop.py").write_text(PROJECT)
    ran = subprocess.run(
        [sys.executable, "-m", "pytest", "-q", "-p", "no:cacheprovider", str(tmp_path)],
        cwd=tmp_path,
        env={"PATH": "", "DATABASE_URL": database, "PYTHONPATH": str(CHECKOUT)},
        capture_output=True,
        text=True,
        timeout=100,
        check=False,
    )

    assert ran.returncode == 0, ran.stdout + ran.stderr
    assert "1 passed" in ran.stdout


def test_a_worker_in_the_process(relay: RelayFactory, database: str, valkey_url: str) -> None:
    """The whole way without containers: Celery's own `start_worker`, without its ping, and a relay.

    The ping is a task that is sent and waited for, before anybody would publish it.
    """
    app = OutboxCelery("shop", broker=valkey_url, backend=valkey_url, set_as_current=False)

    @app.task(name="shop.add", shared=False)
    def add(x: int, y: int) -> int:
        return x + y

    with start_worker(app, perform_ping_check=False):
        with psycopg.connect(database) as connection, app.outbox.using(connection):
            result = add.delay(1, 2)
        relay("run", "--drain", OUTBOX_DATABASE_URL=database, OUTBOX_BROKER_URL=valkey_url)
        assert result.get(timeout=60) == 3
    assert states(database)["sent"] == 1

"""A whole installation: Postgres, a broker, the relay, an ordinary Celery worker, and a producer.

One per result backend and test process; the tests only send and read results.
"""

import threading
from collections.abc import Iterator
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass
from typing import Any

import psycopg
import pytest
from celery.backends.database.session import SessionManager
from sqlalchemy import create_engine

from servers import Postgres, RabbitMQ, Valkey
from tests.end_to_end import tasks
from tests.fixtures.programs import Program, Relay, worker_command


@dataclass(frozen=True, slots=True)
class Lab:
    """What a test needs of the installation."""

    database: str
    relay: Relay
    worker: Program

    @contextmanager
    def transaction(self) -> Iterator[psycopg.Connection[Any]]:
        """A transaction of a producer, which every task sent inside joins."""
        with (
            psycopg.connect(self.database) as connection,
            tasks.app.outbox.transaction(connection),
        ):
            yield connection


@pytest.fixture(scope="module", params=["redis", "database"])
def lab(
    request: pytest.FixtureRequest,
    postgres: Postgres,
    migrated_template: str,
    rabbitmq: RabbitMQ,
    results_server: Valkey,
    tmp_path_factory: pytest.TempPathFactory,
) -> Iterator[Lab]:
    """The installation, with results in Redis or in Postgres."""
    folder = tmp_path_factory.mktemp("lab")
    with ExitStack() as stack:
        database = postgres.create_database(template=migrated_template)
        broker = rabbitmq.url(rabbitmq.create_vhost())
        if request.param == "redis":
            results = results_server.url
        else:
            url = database.replace("postgresql://", "postgresql+psycopg://")
            results = f"db+{url}"
            # Celery 5.4 makes its tables itself, but in the first database of a process only.
            engine = create_engine(url)
            SessionManager().prepare_models(engine)
            engine.dispose()
        environment = {
            "OUTBOX_DATABASE_URL": database,
            "OUTBOX_BROKER_URL": broker,
            "OUTBOX_RETRY_DELAY": "100ms",
            "LAB_BROKER_URL": broker,
            "LAB_RESULTS_URL": results,
        }
        relay = Relay(("run",), folder, _only(environment, "OUTBOX_"))
        stack.callback(relay.kill)
        relay.wait_ready()
        worker = Program(
            *worker_command("tests.end_to_end.tasks", folder, environment, "--concurrency=2")
        )
        stack.callback(worker.kill)
        worker.wait_for_output(" ready.")
        # The producer has results to read, and no broker at all.
        tasks.app.conf.update(result_backend=results, broker_url=None)
        vars(tasks.app).update(_backend_cache=None, _local=threading.local())
        yield Lab(database, relay, worker)


def _only(environment: dict[str, str], prefix: str) -> dict[str, str]:
    return {name: value for name, value in environment.items() if name.startswith(prefix)}

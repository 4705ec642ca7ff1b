"""The lines that shapes are played on, all of them at a time; started once for the module."""

from collections.abc import Callable, Iterator
from contextlib import ExitStack
from dataclasses import dataclass
from typing import Any
from uuid import uuid4

import pytest

from servers import Postgres, RabbitMQ, Valkey
from tests.end_to_end.canvas.apps import Plan
from tests.end_to_end.canvas.line import Line, sender, start_relay, start_worker


@dataclass(frozen=True, slots=True)
class Stage:
    """Plain Celery, and ours with several kinds of worker."""

    plain: Line
    #: The worker has a database, and stores what follows a task.
    stored: Line
    #: So it does, and its tasks run in transactions.
    within: Line
    #: It has none, and sends what follows to the broker.
    direct: Line

    @property
    def ours(self) -> tuple[Line, ...]:
        """All but plain Celery's."""
        return self.stored, self.within, self.direct


@pytest.fixture(scope="module", params=["rabbitmq", pytest.param("redis", marks=pytest.mark.long)])
def broker_of_its_own(
    request: pytest.FixtureRequest, tmp_path_factory: pytest.TempPathFactory
) -> Iterator[Callable[[], str]]:
    """What makes a broker for a line: a virtual host of the shared RabbitMQ, or a Valkey."""
    with ExitStack() as servers:

        def virtual_host() -> str:
            node: RabbitMQ = request.getfixturevalue("rabbitmq")
            return node.url(node.create_vhost())

        def valkey() -> str:
            server = Valkey(tmp_path_factory.mktemp("broker"))
            servers.callback(server.discard)
            return server.start().url

        yield virtual_host if request.param == "rabbitmq" else valkey


@pytest.fixture(scope="module")
def stage(
    broker_of_its_own: Callable[[], str],
    postgres: Postgres,
    migrated_template: str,
    results_server: Valkey,
    tmp_path_factory: pytest.TempPathFactory,
) -> Iterator[Stage]:
    """The three lines on one kind of broker."""
    folder = tmp_path_factory.mktemp("canvas")
    with ExitStack() as stack:
        workers: list[Any] = []
        relays: list[Any] = []

        def line(name: str, *, outbox: bool = True, stores: bool = False, around: str = "") -> Line:
            database = postgres.create_database(template=migrated_template) if outbox else ""
            plan = Plan(
                line=f"{name}-{uuid4().hex[:8]}",
                journal=results_server.url,
                results=results_server.url,
                broker=broker_of_its_own(),
                outbox=outbox,
                around=around,
                database=database,
            )
            workers.append(start_worker(plan, folder, database=database if stores else ""))
            stack.callback(workers[-1].kill)
            if outbox:
                relays.append(start_relay(plan, folder, database))
                stack.callback(relays[-1].kill)
            whole = sender(plan, database)
            stack.callback(whole.close)
            return whole

        lines = (
            line("plain", outbox=False),
            line("stored", stores=True),
            line("within", stores=True, around="a block"),
            line("direct"),
        )
        for relay in relays:
            relay.wait_ready()
        for worker in workers:
            worker.wait_for_output(" ready.")
        yield Stage(*lines)

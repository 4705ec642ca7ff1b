"""All that the play is performed on: servers, relays, workers, a Prometheus. It ends together.

The shop's outbox has two relays of its own and RabbitMQ. A third relay serves three tenants in
another database, and Valkey: so the panels about many outboxes and about Redis have something to
show.
"""

from collections.abc import Callable
from contextlib import ExitStack
from pathlib import Path
from types import TracebackType
from typing import Final, Self

import psycopg

from dashboard_picture.programs import Relay, Worker, address
from demo.programs import ProgramEnded
from outbox_migrations import upgrade
from servers import Postgres, Prometheus, RabbitMQ, Valkey
from servers.prometheus import find_or_fetch
from shop.app import app
from shop.database import TABLES

TENANTS: Final = ("tenant_1", "tenant_2", "tenant_3")
#: Refused messages are given up while somebody watches.
RELAY_SETTINGS: Final = {"OUTBOX_MAX_ATTEMPTS": "4", "OUTBOX_RETRY_DELAY": "2s"}
#: Far above what the tenants send: the ratio shall move, and hold nothing back.
VALKEY_MEMORY: Final = "48mb"
#: A worker may end with its broker; a supervisor starts it again, and so do we, up to so often.
MOST_RESTARTS: Final = 10


class Stage:
    """What runs during the play; a context manager that ends it."""

    def __init__(self, folder: Path) -> None:
        self._folder = folder
        self._closing = ExitStack()
        self._absent: set[str] = set()
        self._restarts = 0
        self._programs: dict[str, Relay | Worker] = {}
        self._starters: dict[str, Callable[[], Relay | Worker]] = {}

    def __enter__(self) -> Self:
        with ExitStack() as stack:
            self._start_servers(stack)
            addresses = {name: address() for name in ("relay-1", "relay-2", "tenants-relay")}
            self._define_programs(addresses)
            stack.callback(self._kill_programs)
            for name in self._starters:
                self.start(name)
            self.prometheus = Prometheus(
                self._folder / "prometheus", find_or_fetch("prometheus"), addresses
            )
            stack.callback(self.prometheus.discard)
            self.prometheus.start()
            self._closing = stack.pop_all()
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        trace: TracebackType | None,
    ) -> None:
        self._closing.close()

    def start(self, name: str) -> None:
        """Start a program, for the first time or again."""
        self._absent.discard(name)
        self._programs[name] = self._starters[name]()

    def kill(self, name: str) -> None:
        """SIGKILL a program, which then stays away until it is started."""
        self._absent.add(name)
        self._programs[name].kill()

    def check(self) -> None:
        """Raise for a relay that ended by itself; do what a supervisor does for a worker."""
        for name, program in list(self._programs.items()):
            if name in self._absent or not program.has_ended():
                continue
            self._restarts += 1
            if isinstance(program, Relay) or self._restarts > MOST_RESTARTS:
                program.check()
                raise ProgramEnded(f"{name} ended")
            self.start(name)

    def relay_environment(self) -> dict[str, str]:
        """What a command of outbox-relay about the shop is told."""
        return {"OUTBOX_DATABASE_URL": self.shop_url, "OUTBOX_BROKER_URL": self.rabbitmq.url()}

    def _start_servers(self, stack: ExitStack) -> None:
        postgres = Postgres(self._folder / "postgres")
        stack.callback(postgres.discard)
        postgres.start()
        self.shop_url = postgres.create_database("shop")
        self.tenants_url = postgres.create_database("tenants")
        upgrade(self.shop_url)
        for tenant in TENANTS:
            upgrade(self.tenants_url, tenant, "outbox")
        with psycopg.connect(self.shop_url) as connection:
            connection.execute(TABLES)
        self.rabbitmq = RabbitMQ(self._folder / "rabbitmq")
        stack.callback(self.rabbitmq.discard)
        self.rabbitmq.start()
        self._valkey = Valkey(self._folder / "valkey", {"maxmemory": VALKEY_MEMORY})
        stack.callback(self._valkey.discard)
        self._valkey.start()
        results = Valkey(self._folder / "results")
        stack.callback(results.discard)
        self._results_url = results.start().url
        app.conf.update(result_backend=self._results_url)  # chords register their parts there

    def _define_programs(self, addresses: dict[str, str]) -> None:
        shop = {**RELAY_SETTINGS, **self.relay_environment()}
        file = self._folder / "databases"
        file.touch(mode=0o600)
        file.write_text(f"{self.tenants_url} tenant_*\n")
        tenants = {
            "OUTBOX_DATABASES_FILE": str(file),
            "OUTBOX_BROKER_URL": self._valkey.url,
        }
        settings = {"relay-1": shop, "relay-2": shop, "tenants-relay": tenants}
        for name, own in settings.items():
            self._starters[name] = self._relay(name, addresses[name], own)
        self._starters["orders"] = self._worker("orders", "celery,reports,stock", 2)
        self._starters["messages"] = self._worker("messages", "sms,mail", 1)

    def _relay(self, name: str, at: str, settings: dict[str, str]) -> Callable[[], Relay]:
        return lambda: Relay(name, self._folder, at, settings)

    def _worker(self, name: str, queues: str, concurrency: int) -> Callable[[], Worker]:
        settings = {
            "OUTBOX_DATABASE_URL": self.shop_url,
            "SHOP_BROKER_URL": self.rabbitmq.url(),
            "SHOP_RESULTS_URL": self._results_url,
        }
        return lambda: Worker(name, self._folder, queues, concurrency, settings)

    def _kill_programs(self) -> None:
        for program in self._programs.values():
            program.kill()

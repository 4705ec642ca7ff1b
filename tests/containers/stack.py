"""A project of deploy/compose.yaml of a test's own: other ports, other names, gone at the end."""

import json
import secrets
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from typing import Any, Final
from urllib.error import HTTPError
from urllib.request import Request, urlopen

from servers.ports import free_port
from tests.containers.engine import COMPOSE_FILE, EngineError, docker, inspect
from tests.fixtures.waiting import wait_until

#: What is built here is kept as a cache, under names that nobody deploys.
IMAGES: Final = {
    f"{name.upper()}_IMAGE": f"celery-outbox/{name}:test"
    for name in ("relay", "migrate", "shop", "console")
}
RECOVERY_SECONDS: Final = 60.0


@dataclass(frozen=True, slots=True)
class Stack:
    """The containers of one project."""

    project: str = field(default_factory=lambda: f"outbox-test-{secrets.token_hex(4)}")
    shop_port: int = field(default_factory=free_port)
    prometheus_port: int = field(default_factory=free_port)
    grafana_port: int = field(default_factory=free_port)
    management_port: int = field(default_factory=free_port)
    console_port: int = field(default_factory=free_port)

    @property
    def environment(self) -> dict[str, str]:
        """The variables that compose.yaml reads."""
        return {
            **IMAGES,
            "SHOP_PORT": str(self.shop_port),
            "PROMETHEUS_PORT": str(self.prometheus_port),
            "GRAFANA_PORT": str(self.grafana_port),
            "RABBITMQ_MANAGEMENT_PORT": str(self.management_port),
            "CONSOLE_PORT": str(self.console_port),
            "REVISION": "under-test",
            "VERSION": "0.0.test",
        }

    def compose(self, *arguments: str) -> str:
        """Run a docker compose command on this project."""
        file, project = f"--file={COMPOSE_FILE}", f"--project-name={self.project}"
        return docker("compose", file, project, *arguments, env=self.environment)

    def up(self, *services: str) -> None:
        """Start these services, or all without a profile, and wait until they are healthy."""
        self.compose("up", "--wait", "--detach", "--pull=never", *services)

    def containers(self, service: str) -> list[str]:
        """The containers of a service, running or not."""
        return self.compose("ps", "--all", "--quiet", service).split()

    def python(self, service: str, program: str) -> Any:
        """Run a program inside a service's container and return the JSON it prints."""
        return json.loads(self.compose("exec", "-T", service, "python", "-c", program))

    def wait_recovered(self, container: str, crashed: str) -> None:
        """Wait until a container that started at `crashed` runs anew, and is healthy."""

        def is_back() -> bool:
            state = inspect(container)["State"]
            healthy = state.get("Health", {}).get("Status", "healthy") == "healthy"
            return bool(state["StartedAt"] != crashed and state["Running"] and healthy)

        wait_until(is_back, RECOVERY_SECONDS, f"{container[:12]} to recover")

    def ask(self, path: str, order: dict[str, Any] | None = None) -> Any:
        """What the shop answers; None while it cannot."""
        body = None if order is None else json.dumps(order).encode()
        request = Request(f"http://127.0.0.1:{self.shop_port}{path}", data=body)
        request.add_header("Content-Type", "application/json")
        try:
            with urlopen(request, timeout=10) as answer:
                return json.load(answer)
        except HTTPError as error:
            if error.code != 503:
                raise
        except OSError:
            pass
        return None


@contextmanager
def running() -> Iterator[Stack]:
    """Build, start, and remove everything with its data."""
    stack = Stack()
    try:
        stack.compose("build")
        stack.up()
        yield stack
    except EngineError as error:
        raise EngineError(f"{error}\n{_last_words(stack)}") from error
    finally:
        stack.compose("--profile=redis", "--profile=monitoring", "down", "--volumes", "--timeout=5")


def _last_words(stack: Stack) -> str:
    try:
        return stack.compose("logs", "--no-color", "--tail=15")
    except EngineError as error:
        return str(error)

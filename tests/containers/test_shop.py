"""Orders are taken and carried out in containers, whichever of them is killed meanwhile."""

from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass, field
from itertools import count
from threading import Event
from typing import Any

import pytest

from tests.containers.engine import EngineError, crash, inspect
from tests.containers.stack import IMAGES, Stack
from tests.fixtures.waiting import wait_until

ITEMS = ["lamp", "teapot"]
PAUSE_SECONDS = 0.1
DONE_SECONDS = 100.0
#: Everything an order leads to, each of it once.
CARRIED_OUT = {
    "reserved": ITEMS,
    "shipments": 1,
    "invoices": 1,
    "emails": 1,
    "notifications": 2,
}


@dataclass(slots=True)
class Customer:
    """Orders until told to stop, and remembers what the shop has acknowledged."""

    stack: Stack
    orders: list[str] = field(default_factory=list)
    leaving: Event = field(default_factory=Event)

    def order(self) -> None:
        """Order again and again, whatever becomes of it."""
        for number in count():
            if self.leaving.wait(PAUSE_SECONDS):
                return
            answer = self.stack.ask("/orders", {"customer": f"Ada {number}", "items": ITEMS})
            if answer:
                self.orders.append(answer["order"])

    def wait_for_more(self, orders: int = 5) -> None:
        """Wait until the shop has taken so many more."""
        wanted = len(self.orders) + orders
        wait_until(lambda: len(self.orders) >= wanted, DONE_SECONDS, f"{orders} more orders")


@pytest.fixture
def customer(stack: Stack) -> Iterator[Customer]:
    """Somebody who orders for as long as the test lasts, and then gets all of it."""
    customer = Customer(stack)
    with ThreadPoolExecutor(1) as street:
        ordering = street.submit(customer.order)
        try:
            customer.wait_for_more()
            yield customer
            customer.wait_for_more()
        finally:
            customer.leaving.set()
    ordering.result()
    for order in customer.orders:
        wait_until(lambda order=order: is_carried_out(stack, order), DONE_SECONDS, order)  # type: ignore[misc]  # a default binds the loop's value; mypy infers no such lambda


def is_carried_out(stack: Stack, order: str) -> bool:
    """Whether all its tasks have run; fails where one has run twice."""
    progress: dict[str, Any] = stack.ask(f"/orders/{order}") or {}
    assert all(progress.get(key, 0) <= 1 for key in ("shipments", "invoices", "emails")), progress
    return {key: progress.get(key) for key in CARRIED_OUT} == CARRIED_OUT


def test_an_order_runs_its_tasks(stack: Stack, customer: Customer) -> None:
    """Placed over HTTP, carried out by the worker."""
    customer.wait_for_more(1)


@pytest.mark.parametrize("service", ["relay", "worker", "rabbitmq", "postgres", "shop"])
def test_a_killed_container_recovers_and_nothing_is_lost(
    stack: Stack, customer: Customer, service: str
) -> None:
    """Without anybody's help: the engine starts it again, and the others wait for it."""
    container = stack.containers(service)[0]
    started = inspect(container)["State"]["StartedAt"]

    crash(container, IMAGES["RELAY_IMAGE"])

    stack.wait_recovered(container, started)


def test_relays_that_are_told_to_stop_finish_first(stack: Stack, customer: Customer) -> None:
    """SIGTERM ends them with 0; the shop goes on without them."""
    stack.compose("stop", "relay")

    exits = [inspect(container)["State"]["ExitCode"] for container in stack.containers("relay")]
    assert exits == [0, 0]
    customer.wait_for_more()
    stack.compose("start", "relay")


@pytest.mark.parametrize("service", ["shop", "worker"])
def test_a_service_that_is_told_to_stop_ends_by_itself(stack: Stack, service: str) -> None:
    """With 0: the engine need not kill it when its time is over."""
    stack.compose("stop", service)

    exits = [inspect(container)["State"]["ExitCode"] for container in stack.containers(service)]
    stack.up(service)
    assert exits == [0]


def test_a_relay_without_its_broker_is_not_healthy(stack: Stack) -> None:
    """It says so itself, and is healthy again once the broker is back."""
    stack.compose("stop", "--timeout=1", "rabbitmq")
    wait_until(lambda: not is_healthy(stack), DONE_SECONDS, "the health check to fail")

    stack.compose("start", "rabbitmq")

    wait_until(lambda: is_healthy(stack), DONE_SECONDS, "the health check to pass")


def is_healthy(stack: Stack) -> bool:
    """Whether a relay passes the check that the engine runs."""
    try:
        return "ready" in stack.compose("exec", "-T", "relay", "outbox-relay", "health")
    except EngineError:
        return False

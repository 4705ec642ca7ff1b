"""Prometheus finds every relay and has our alerts; Grafana has our dashboard, without a hand."""

import json
from typing import Any
from urllib.request import urlopen

import pytest

from tests.containers.conftest import FetchImage, image_of
from tests.containers.stack import Stack
from tests.deploy.board import alerts, dashboard
from tests.fixtures.waiting import wait_until

SECONDS = 60.0


@pytest.fixture
def prometheus(stack: Stack, fetch_image: FetchImage) -> str:
    """The address of a running one."""
    return started(stack, "prometheus", stack.prometheus_port, fetch_image)


@pytest.fixture
def grafana(stack: Stack, fetch_image: FetchImage) -> str:
    """The same of Grafana."""
    return started(stack, "grafana", stack.grafana_port, fetch_image)


def started(stack: Stack, service: str, port: int, fetch_image: FetchImage) -> str:
    """Start a service of the profile `monitoring`."""
    fetch_image(image_of(service))
    stack.up(service)
    return f"http://127.0.0.1:{port}"


def ask(url: str) -> Any:
    """What it answers; None while it does not."""
    try:
        with urlopen(url, timeout=10) as answer:
            return json.load(answer)
    except OSError:
        return None


def test_prometheus_scrapes_both_relays(prometheus: str) -> None:
    """They are found by the name of their service."""

    def seen() -> int:
        answer = ask(f"{prometheus}/api/v1/query?query=outbox_broker_up")
        return len(answer["data"]["result"]) if answer else 0

    wait_until(lambda: seen() == 2, SECONDS, "two relays in Prometheus")


def test_prometheus_has_our_alerts(prometheus: str) -> None:
    """Each of them."""
    answer = wait_until(lambda: ask(f"{prometheus}/api/v1/rules"), SECONDS, "Prometheus")

    known = {rule["name"] for group in answer["data"]["groups"] for rule in group["rules"]}
    assert known == set(alerts())


def test_grafana_has_our_dashboard(grafana: str) -> None:
    """Provisioned, for whoever looks."""
    found = wait_until(lambda: ask(f"{grafana}/api/search?query="), SECONDS, "a dashboard")

    assert dashboard()["title"] in {each["title"] for each in found}

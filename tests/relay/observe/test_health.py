"""/metrics, /livez and /readyz say what is so, to anyone who asks, and can be told nothing."""

import socket
from collections.abc import Iterator
from contextlib import ExitStack
from http.client import HTTPConnection

import pytest
from prometheus_client import CollectorRegistry, Gauge

from outbox_relay.errors import SettingsError
from outbox_relay.observe import health as health_module
from outbox_relay.observe.health import Endpoint, Health
from outbox_relay.settings.table import HTTP_ADDRESS
from servers.ports import free_port


class Client:
    """Asks an endpoint, and keeps the health it reports on."""

    def __init__(self, port: int, health: Health) -> None:
        self.port, self.health = port, health

    def ask(self, path: str, method: str = "GET") -> tuple[int, str]:
        """Status and body of an answer."""
        connection = HTTPConnection("127.0.0.1", self.port, timeout=10)
        connection.request(method, path)
        answer = connection.getresponse()
        body = answer.read().decode()
        connection.close()
        return answer.status, body


@pytest.fixture
def client() -> Iterator[Client]:
    """A running endpoint."""
    registry = CollectorRegistry()
    Gauge("outbox_example", "An example", registry=registry).set(42)
    health, port = Health(), free_port()
    with Endpoint(("127.0.0.1", port), health, registry):
        yield Client(port, health)


def test_metrics_are_readable(client: Client) -> None:
    """In Prometheus' own text format."""
    status, body = client.ask("/metrics")

    assert status == 200
    assert "outbox_example 42.0" in body


@pytest.mark.parametrize(
    ("broker", "database", "status", "said"),
    [
        (True, True, 200, "ready"),
        (False, True, 503, "no connection to: broker"),
        (True, False, 503, "no connection to: database"),
        (False, False, 503, "no connection to: broker, database"),
    ],
)
def test_ready_means_broker_and_database(
    client: Client, broker: bool, database: bool, status: int, said: str
) -> None:
    """And what is missing is named."""
    client.health.broker_up, client.health.database_up = broker, database

    assert client.ask("/readyz") == (status, f"{said}\n")


def test_alive_means_progress_not_connections(
    client: Client, monkeypatch: pytest.MonkeyPatch
) -> None:
    """An outage must not restart the relay; a loop that has stopped must."""
    assert client.ask("/livez")[0] == 200

    monkeypatch.setattr(health_module, "STALLED_SECONDS", 0.0)

    assert client.ask("/livez")[0] == 503
    client.health.broker_up = client.health.database_up = True
    assert client.ask("/readyz")[0] == 503


@pytest.mark.parametrize("path", ["/", "/metrics/../etc/passwd", "/livezz", "/admin"])
def test_there_is_nothing_else(client: Client, path: str) -> None:
    """Any other path is not found."""
    assert client.ask(path)[0] == 404


@pytest.mark.parametrize("method", ["POST", "PUT", "DELETE", "PATCH", "OPTIONS", "TRACE"])
@pytest.mark.parametrize("path", ["/metrics", "/livez", "/retry"])
def test_nothing_can_be_changed_over_http(client: Client, path: str, method: str) -> None:
    """Read-only: steering is the command line's business."""
    assert client.ask(path, method)[0] == 405


def test_a_head_is_an_answer_without_its_body(client: Client) -> None:
    """Some probes ask that way."""
    assert client.ask("/livez", "HEAD") == (200, "")


def test_a_query_is_no_obstacle(client: Client) -> None:
    """Some probes add one."""
    assert client.ask("/livez?verbose=1")[0] == 200


def test_a_silent_client_keeps_nobody_waiting(client: Client) -> None:
    """One that connects and says nothing does not hold up the next."""
    with socket.create_connection(("127.0.0.1", client.port)):
        assert client.ask("/livez")[0] == 200


def test_a_crowd_of_slow_clients_keeps_nobody_waiting(client: Client) -> None:
    """More than there are places, none of which ever ends its request: the next one is answered."""
    with ExitStack() as crowd:
        for _ in range(3 * health_module.MAX_CLIENTS):
            slow = crowd.enter_context(socket.create_connection(("127.0.0.1", client.port)))
            slow.sendall(b"GET /livez HTTP/1.1\r\nX-Slow: ")
        for _ in range(5):
            assert client.ask("/livez")[0] == 200


def test_a_request_has_its_time(client: Client, monkeypatch: pytest.MonkeyPatch) -> None:
    """A client that sends a byte now and then is cut off all the same."""
    monkeypatch.setattr(health_module, "REQUEST_SECONDS", 0.1)
    with socket.create_connection(("127.0.0.1", client.port)) as slow:
        slow.settimeout(10)
        slow.sendall(b"G")

        assert slow.recv(1) == b""


def test_only_this_machine_is_answered_by_default() -> None:
    """Anything else has to be asked for, by OUTBOX_HTTP_ADDRESS."""
    assert HTTP_ADDRESS.initial is not None
    assert HTTP_ADDRESS.initial[0] == "127.0.0.1"


def test_an_address_in_use_names_its_variable() -> None:
    """Two relays on one machine: the second says which setting to change."""
    with socket.socket() as taken:
        taken.bind(("127.0.0.1", 0))
        taken.listen()
        with pytest.raises(SettingsError, match=r"OUTBOX_HTTP_ADDRESS.* Another relay"):
            Endpoint(taken.getsockname(), Health(), CollectorRegistry())

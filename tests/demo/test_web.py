"""The shop's HTTP API: an order and its tasks are stored together, or an error says why not."""

from typing import Any

import psycopg
import pytest
from flask.testing import FlaskClient

from servers.ports import free_port
from shop.app import app
from shop.web import open_shop
from tests.fixtures.rows import states

ORDER = {"customer": "Ada", "items": ["teapot", "lamp"]}
#: Two reservations, an invoice and two notifications; the rest is sent by those.
TASKS = 5


@pytest.fixture
def client(database: str, monkeypatch: pytest.MonkeyPatch) -> FlaskClient:
    """Somebody who orders. No broker is there, and none is missed."""
    monkeypatch.setenv("OUTBOX_DATABASE_URL", database)
    monkeypatch.setitem(app.conf, "result_backend", "cache+memory://")
    return open_shop().test_client()


def test_an_order_is_stored_with_its_tasks(client: FlaskClient, database: str) -> None:
    """The answer says where to ask what has become of it."""
    answer = client.post("/orders", json=ORDER)

    assert answer.status_code == 201
    progress = client.get(answer.headers["Location"]).get_json()
    assert progress == {
        "order": answer.get_json()["order"],
        "customer": "Ada",
        "reserved": [],
        "shipments": 0,
        "invoices": 0,
        "emails": 0,
        "notifications": 0,
    }
    assert states(database)["pending"] == TASKS


@pytest.mark.parametrize(
    "order", [{}, {"customer": "Ada", "items": []}, {"customer": "Ada", "items": [1]}, []], ids=str
)
def test_what_is_no_order_is_refused(client: FlaskClient, order: Any) -> None:
    """With an example of one."""
    answer = client.post("/orders", json=order)

    assert answer.status_code == 400
    assert b"teapot" in answer.data


def test_an_unknown_order_is_not_found(client: FlaskClient) -> None:
    """There is nothing to show."""
    assert client.get("/orders/unknown").status_code == 404


def test_without_the_database_nothing_is_pretended(
    client: FlaskClient, database: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The customer is told to come back, and nothing is stored."""
    with monkeypatch.context() as away:
        away.setenv("OUTBOX_DATABASE_URL", f"postgresql://nobody@127.0.0.1:{free_port()}/nothing")
        answers = [client.post("/orders", json=ORDER), client.get("/health")]

    assert [answer.status_code for answer in answers] == [503, 503]
    with psycopg.connect(database) as connection:
        assert connection.execute("SELECT count(*) FROM shop.orders").fetchone() == (0,)
    assert client.get("/health").status_code == 200

"""Faults 38 and 39: passwords are changed and rights taken away, on either side."""

import os
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from urllib.parse import urlsplit, urlunsplit

import psycopg
import pytest
from psycopg import sql

from outbox_migrations import grant
from servers import Postgres
from tests.faults.evidence import TERMINATE, Said, isolations
from tests.faults.lab import DEADLINE, WINDOW, Lab
from tests.faults.queues import RabbitQueue, through
from tests.fixtures.broker import Broker
from tests.fixtures.waiting import wait_until


@pytest.mark.fault(38)
def test_the_brokers_password_is_changed(lab: Lab, rabbit: RabbitQueue, tmp_path: Path) -> None:
    """Not ready while the old one is refused; the new one is read without a restart."""
    file = tmp_path / "url"
    with a_user(rabbit.broker) as user:
        own = rabbit.url.replace(f"outbox:{rabbit.broker.node.password}", f"{user}:first")
        file.write_text(through(own, lab.to_broker.port))
        relay = lab.relay(OUTBOX_BROKER_URL="", OUTBOX_BROKER_URL_FILE=str(file))
        lab.under_way()
        with lab.fault(lambda: relay.events("broker_lost")):
            rabbit.broker.node.evaluate(
                f'rabbit_auth_backend_internal:change_password(<<"{user}">>, <<"second">>, <<"">>)'
            )
            disconnect(rabbit.broker, user)
            wait_until(lambda: not relay.ready(), DEADLINE, "a relay that is not ready")
            lab.commit(100)
        file.write_text(through(own.replace("first", "second"), lab.to_broker.port))

        lab.finish()
    assert "second" not in relay.output()


@pytest.mark.fault(39)
def test_rights_at_the_broker_are_taken_away(lab: Lab, rabbit: RabbitQueue) -> None:
    """403 is an operator's to fix: messages wait, charged with nothing."""
    with a_user(rabbit.broker) as user:
        relay = lab.relay(OUTBOX_BROKER_URL=_as(user, lab, rabbit))
        lab.under_way()
        with lab.fault(lambda: relay.events("broker_lost") or relay.events("messages_refused")):
            permit(rabbit.broker, user, "^$")
            disconnect(rabbit.broker, user)  # a channel that is open would keep what it could
            lab.commit(300)
            wait_until(
                lambda: relay.events("broker_lost") and "403" in relay.output(), DEADLINE, "a 403"
            )
            assert lab.attempts() == 0
        permit(rabbit.broker, user, ".*")

        lab.finish(duplicates=WINDOW * (1 + isolations(relay)))


@pytest.mark.fault(39)
def test_its_user_at_the_broker_is_deleted(lab: Lab, rabbit: RabbitQueue) -> None:
    """The broker closes the connection: an outage, until the user is there again."""
    with a_user(rabbit.broker) as user:
        relay = lab.relay(OUTBOX_BROKER_URL=_as(user, lab, rabbit))
        lab.under_way()
        with lab.fault(lambda: relay.events("broker_lost")):
            rabbit.broker.node.evaluate(
                f'rabbit_auth_backend_internal:delete_user(<<"{user}">>, <<"">>)'
            )
            disconnect(rabbit.broker, user)
            lab.commit(300)
            relay.wait_for_event("broker_lost")
        add_user(rabbit.broker, user)

        lab.finish()


@pytest.mark.fault(38)
def test_the_databases_password_is_changed(lab: Lab, postgres: Postgres, tmp_path: Path) -> None:
    """Not ready while the old one is refused; the new one is read without a restart."""
    said = Said(postgres, "password authentication failed")
    file = tmp_path / "url"
    with a_role(lab, "first") as url:
        file.write_text(through(url, lab.to_database.port))
        relay = lab.relay(OUTBOX_DATABASE_URL="", OUTBOX_DATABASE_URL_FILE=str(file))
        lab.under_way()
        with lab.fault(said.again):
            set_password(lab, url, "second")
            lab.run(TERMINATE)
            wait_until(said.again, DEADLINE, "a login that fails")
            lab.commit(100)
            assert not relay.ready()
        file.write_text(through(url.replace(":first@", ":second@"), lab.to_database.port))

        lab.finish()
    assert "second" not in relay.output()


@pytest.mark.fault(39)
def test_rights_in_the_database_are_taken_away(lab: Lab) -> None:
    """REVOKE in mid-traffic: waited out, said with the way out, charged to no message."""
    with a_role(lab, "first") as url:
        relay = lab.relay(OUTBOX_DATABASE_URL=through(url, lab.to_database.port))
        lab.under_way()
        with lab.fault(lambda: "grant" in relay.events("database_lost")[0]["reason"]):
            lab.run("REVOKE UPDATE ON outbox.ready FROM outbox_relay")
            lab.commit(100)
            relay.wait_for_event("database_lost")
            assert not relay.process.poll()
        lab.run("GRANT UPDATE ON outbox.ready TO outbox_relay")

        lab.finish()


@contextmanager
def a_user(broker: Broker) -> Iterator[str]:
    """A user who may do all in the virtual host, with the password `first`."""
    user = f"user-{os.urandom(4).hex()}"
    add_user(broker, user)
    yield user
    broker.node.evaluate(f'rabbit_auth_backend_internal:delete_user(<<"{user}">>, <<"">>)')


def add_user(broker: Broker, user: str) -> None:
    """Add the user."""
    broker.node.evaluate(
        f'ok = rabbit_auth_backend_internal:add_user(<<"{user}">>, <<"first">>, <<"">>)'
    )
    permit(broker, user, ".*")


def permit(broker: Broker, user: str, pattern: str) -> None:
    """Let the user configure, write and read what the pattern matches, and nothing else."""
    rights = ", ".join([f'<<"{pattern}">>'] * 3)
    broker.node.evaluate(
        "ok = rabbit_auth_backend_internal:set_permissions("
        f'<<"{user}">>, <<"{broker.vhost}">>, {rights}, <<"">>)'
    )


def disconnect(broker: Broker, user: str) -> None:
    """Close the user's connections, as the node does with those of a user who is deleted."""
    broker.node.evaluate(
        f'rabbit_networking:close_all_user_connections(<<"{user}">>, <<"changed">>)'
    )


def _as(user: str, lab: Lab, rabbit: RabbitQueue) -> str:
    own = rabbit.url.replace(f"outbox:{rabbit.broker.node.password}", f"{user}:first")
    return through(own, lab.to_broker.port)


@contextmanager
def a_role(lab: Lab, password: str) -> Iterator[str]:
    """The URL of a login with a relay's rights."""
    grant(lab.database)
    name = f"relay_{os.urandom(4).hex()}"
    lab.run(f"CREATE ROLE {name} LOGIN IN ROLE outbox_relay")
    parts = urlsplit(lab.database)
    netloc = f"{name}:{password}@{parts.hostname}:{parts.port}"
    url = urlunsplit(parts._replace(netloc=netloc))
    set_password(lab, url, password)
    yield url


def set_password(lab: Lab, url: str, password: str) -> None:
    """Change the password of the login in a URL."""
    name = sql.Identifier(urlsplit(url).username or "")
    with psycopg.connect(lab.database, autocommit=True) as connection:
        statement = sql.SQL("ALTER ROLE {} PASSWORD {}").format(name, sql.Literal(password))
        connection.execute(statement)

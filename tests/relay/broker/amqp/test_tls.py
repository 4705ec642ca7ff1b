"""TLS to RabbitMQ and Postgres: certificate and host name are checked; clients can show theirs.

The test servers speak it by way of a tunnel, which makes no difference to the relay. For Redis, see
redis/test_tls.py.
"""

from collections.abc import Callable
from pathlib import Path
from urllib.parse import urlsplit

import pytest
from psycopg.conninfo import make_conninfo

from outbox_relay.broker.amqp.connect import open_connection
from outbox_relay.broker.redis.connect import open_server
from outbox_relay.errors import BrokerLost, SettingsError, StoreLost
from outbox_relay.postgres.store import Store
from tests.fixtures.broker import Broker
from tests.fixtures.programs import RelayFactory
from tests.fixtures.rows import commit_rows, states
from tests.fixtures.tls import Authority, Tunnel
from tests.fixtures.waiting import wait_until

DEADLINE = 30.0


def secure(url: str, host: str, port: int, authority: Authority | None) -> str:
    """A broker's URL with TLS, at another host and port."""
    given = urlsplit(url)
    place = f"{given.username}:{given.password}@{host}:{port}"
    trust = f"?ssl_ca_certs={authority.certificate.cert}" if authority else ""
    return given._replace(scheme="amqps", netloc=place).geturl() + trust


def connect(url: str) -> None:
    """Open a connection, and let go of it."""
    open_connection(url).collect()


def open_redis(url: str) -> object:
    """The same on Redis."""
    return open_server(url, {})


class TestRabbitMQ:
    """amqps://, with an authority of one's own."""

    def test_the_whole_relay_works_over_tls(
        self,
        relay: RelayFactory,
        database: str,
        broker: Broker,
        authority: Authority,
        tls_tunnel: Tunnel,
    ) -> None:
        """Declarations, messages and confirms."""
        port = tls_tunnel(broker.node.port, authority.server_context("localhost"))
        queue = '[{"kind": "queue", "name": "celery", "routing_key": "celery"}]'
        commit_rows(database, 100, declare=queue)
        url = secure(broker.url, "localhost", port, authority)

        relay(OUTBOX_DATABASE_URL=database, OUTBOX_BROKER_URL=url)
        wait_until(lambda: states(database)["sent"] == 100, DEADLINE, "all to be sent")

        assert broker.depth("celery") == 100

    def test_an_unknown_authority_is_refused(
        self, broker: Broker, authority: Authority, tls_tunnel: Tunnel
    ) -> None:
        """Only what the system trusts, where the URL says nothing."""
        port = tls_tunnel(broker.node.port, authority.server_context("localhost"))

        with pytest.raises(BrokerLost, match="CERTIFICATE_VERIFY_FAILED"):
            connect(secure(broker.url, "localhost", port, None))

    @pytest.mark.parametrize(
        ("certified", "asked"), [("another.example", "localhost"), ("localhost", "127.0.0.1")]
    )
    def test_another_hosts_certificate_is_refused(
        self, broker: Broker, authority: Authority, tls_tunnel: Tunnel, certified: str, asked: str
    ) -> None:
        """The right authority and the wrong name: the reason says which is not there."""
        port = tls_tunnel(broker.node.port, authority.server_context(certified))

        with pytest.raises(BrokerLost, match=rf"{asked}:{port}: .*(Hostname|IP address) mismatch"):
            connect(secure(broker.url, asked, port, authority))

    def test_a_broker_that_asks_for_a_certificate_is_shown_one(
        self, broker: Broker, authority: Authority, tls_tunnel: Tunnel
    ) -> None:
        """And takes nobody without."""
        port = tls_tunnel(broker.node.port, authority.server_context("localhost", clients=True))
        url = secure(broker.url, "localhost", port, authority)
        own = authority.issue("relay")

        with pytest.raises(BrokerLost):
            connect(url)

        connect(f"{url}&ssl_certfile={own.cert}&ssl_keyfile={own.key}")

    @pytest.mark.parametrize(
        "option", ["ssl_cert_reqs=none", "ssl_check_hostname=false", "ssl_x=1"]
    )
    def test_checking_cannot_be_turned_off(self, option: str) -> None:
        """An option that would is an error that names the setting and no password."""
        with pytest.raises(SettingsError, match="OUTBOX_BROKER_URL: ssl_") as refused:
            connect(f"amqps://relay:hunter2@localhost:1//?ssl_{option}")

        assert "hunter2" not in str(refused.value)


@pytest.mark.parametrize("open_url", [open_connection, open_redis])
@pytest.mark.parametrize("scheme", ["amqps", "rediss"])
def test_a_check_that_there_is_not_is_named(open_url: Callable[[str], object], scheme: str) -> None:
    """Kombu knows three values of ssl_cert_reqs, and has no words for others."""
    with pytest.raises(SettingsError, match=r"OUTBOX_BROKER_URL: .*'some'"):
        open_url(f"{scheme}://relay:hunter2@localhost:1//?ssl_cert_reqs=some")


def connect_store(url: str, **options: str | int) -> None:
    """Open a store, and close it."""
    Store.connect(make_conninfo(url, **options), "outbox", 5).close()


class TestPostgres:
    """libpq's own sslmode, sslrootcert, sslcert and sslkey, in the URL or beside it."""

    @pytest.fixture
    def trusted(self, authority: Authority) -> dict[str, str]:
        """What a careful client says."""
        return {"sslmode": "verify-full", "sslrootcert": str(authority.certificate.cert)}

    def test_the_whole_relay_works_over_tls(
        self,
        relay: RelayFactory,
        database: str,
        broker: Broker,
        authority: Authority,
        tls_tunnel: Tunnel,
        trusted: dict[str, str],
    ) -> None:
        """Claims, messages and settlements."""
        port = tls_tunnel(port_of(database), authority.server_context("localhost"), postgres=True)
        queue = '[{"kind": "queue", "name": "celery", "routing_key": "celery"}]'
        commit_rows(database, 100, declare=queue)
        url = make_conninfo(database, host="localhost", port=port, **trusted)

        relay(OUTBOX_DATABASE_URL=url, OUTBOX_BROKER_URL=broker.url)
        wait_until(lambda: states(database)["sent"] == 100, DEADLINE, "all to be sent")

    @pytest.mark.parametrize(
        ("certified", "asked"), [("another.example", "localhost"), ("localhost", "127.0.0.1")]
    )
    def test_another_hosts_certificate_is_refused(
        self,
        shared_database: str,
        authority: Authority,
        tls_tunnel: Tunnel,
        trusted: dict[str, str],
        certified: str,
        asked: str,
    ) -> None:
        """The right authority and the wrong name: the reason says both names."""
        context = authority.server_context(certified)
        port = tls_tunnel(port_of(shared_database), context, postgres=True)

        with pytest.raises(StoreLost, match=rf'for "{certified}" .*match host name "{asked}'):
            connect_store(shared_database, host=asked, port=port, **trusted)

    def test_an_unknown_authority_is_refused(
        self, shared_database: str, authority: Authority, tls_tunnel: Tunnel, tmp_path: Path
    ) -> None:
        """A certificate of the right name, by somebody else."""
        context = Authority(tmp_path).server_context("localhost")
        port = tls_tunnel(port_of(shared_database), context, postgres=True)

        with pytest.raises(StoreLost, match="certificate verify failed"):
            connect_store(
                shared_database,
                host="localhost",
                port=port,
                sslmode="verify-full",
                sslrootcert=str(authority.certificate.cert),
            )

    def test_a_server_without_tls_is_refused(
        self, shared_database: str, trusted: dict[str, str]
    ) -> None:
        """There is no silent way back to plain text."""
        with pytest.raises(StoreLost, match="server does not support SSL"):
            connect_store(shared_database, host="localhost", **trusted)

    def test_a_server_that_asks_for_a_certificate_is_shown_one(
        self,
        shared_database: str,
        authority: Authority,
        tls_tunnel: Tunnel,
        trusted: dict[str, str],
    ) -> None:
        """And takes nobody without."""
        context = authority.server_context("localhost", clients=True)
        port = tls_tunnel(port_of(shared_database), context, postgres=True)
        own = authority.issue("relay")

        # The server hangs up; whether libpq still reads why is a matter of who is faster.
        with pytest.raises(StoreLost, match=r"SSL error|closed the connection"):
            connect_store(shared_database, host="localhost", port=port, **trusted)

        connect_store(
            shared_database,
            host="localhost",
            port=port,
            sslcert=str(own.cert),
            sslkey=str(own.key),
            **trusted,
        )


def port_of(url: str) -> int:
    """Where the server listens."""
    port = urlsplit(url).port
    assert port is not None
    return port

"""TLS: the server's certificate is checked, its name as well, without being asked to."""

import pytest

from outbox_relay.errors import BrokerLost
from servers import Valkey
from tests.fixtures.tls import Authority, Tunnel
from tests.relay.broker.redis.conftest import OpenPublisher, publish
from tests.relay.messages import messages


@pytest.fixture
def tls_port(valkey: Valkey, authority: Authority, tls_tunnel: Tunnel) -> int:
    """A port where the server speaks TLS as `localhost`; the test server itself cannot."""
    return tls_tunnel(valkey.port, authority.server_context("localhost"))


def test_messages_go_through_tls(
    valkey: Valkey, tls_port: int, authority: Authority, open_publisher: OpenPublisher
) -> None:
    """With the authority named in the URL, as kombu has it."""
    url = f"rediss://:{valkey.password}@localhost:{tls_port}/0?ssl_ca_certs={authority.certificate.cert}"
    sent = messages(500)

    assert publish(open_publisher(url), sent).confirmed == sent


def test_an_unknown_authority_is_refused(
    valkey: Valkey, tls_port: int, open_publisher: OpenPublisher
) -> None:
    """Kombu alone would accept any certificate where the URL says nothing of it."""
    for scheme in ("rediss", "valkeys"):
        with pytest.raises(BrokerLost, match="CERTIFICATE_VERIFY_FAILED"):
            open_publisher(f"{scheme}://:{valkey.password}@localhost:{tls_port}/0")


def test_another_hosts_certificate_is_refused(
    valkey: Valkey, tls_port: int, authority: Authority, open_publisher: OpenPublisher
) -> None:
    """The name in the URL has to be the name in the certificate."""
    url = f"rediss://:{valkey.password}@127.0.0.1:{tls_port}/0?ssl_ca_certs={authority.certificate.cert}"

    with pytest.raises(BrokerLost, match="CERTIFICATE_VERIFY_FAILED"):
        open_publisher(url)


def test_a_server_that_asks_for_a_certificate_is_shown_one(
    valkey: Valkey, authority: Authority, tls_tunnel: Tunnel, open_publisher: OpenPublisher
) -> None:
    """And takes nobody without."""
    port = tls_tunnel(valkey.port, authority.server_context("localhost", clients=True))
    url = (
        f"rediss://:{valkey.password}@localhost:{port}/0?ssl_ca_certs={authority.certificate.cert}"
    )
    own = authority.issue("relay")
    sent = messages(3)

    with pytest.raises(BrokerLost):
        open_publisher(url)

    whole = f"{url}&ssl_certfile={own.cert}&ssl_keyfile={own.key}"
    assert publish(open_publisher(whole), sent).confirmed == sent

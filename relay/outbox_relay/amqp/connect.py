"""Opens connections through kombu: addresses, TLS with the host name checked, login."""

import ssl
from typing import Any, Final

import amqp
import kombu
from amqp.exceptions import AMQPError
from kombu.utils.url import parse_url

from outbox_relay.errors import BrokerLost

CONNECT_TIMEOUT: Final = 5.0
HEARTBEAT: Final = 10.0


def open_connection(url: str) -> amqp.Connection:
    """A connection that is up, or BrokerLost with a reason that names no password.

    Every step of the handshake is bounded by CONNECT_TIMEOUT seconds.
    """
    parts: dict[str, Any] = parse_url(url)
    secure = parts["transport"] == "amqps"
    described = kombu.Connection(
        url,
        # py-amqp checks the certificate's name only when it is told which to expect.
        ssl={"server_hostname": parts["hostname"], "cert_reqs": ssl.CERT_REQUIRED}
        if secure
        else False,
        connect_timeout=CONNECT_TIMEOUT,
        heartbeat=HEARTBEAT,
        transport_options={"read_timeout": CONNECT_TIMEOUT, "write_timeout": CONNECT_TIMEOUT},
    )
    try:
        # The transport's own method: Connection.connect() retries and sleeps by itself.
        connection: amqp.Connection = described.transport.establish_connection()
    except (OSError, AMQPError) as error:
        where = f"{parts['hostname']}:{parts['port'] or (5671 if secure else 5672)}"
        words = str(error) or type(error).__name__
        raise BrokerLost(f"cannot connect to the broker at {where}: {words}") from error
    return connection

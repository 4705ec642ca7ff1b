"""Opens Redis through kombu: addresses, TLS with the host name checked, ACL users, Sentinel.

A broker has two connections: kombu's own, for bindings, and one whose socket the publisher drives
itself. Nothing here is ever retried: a command whose reply was lost may have been carried out.
"""

from dataclasses import dataclass
from typing import Any, Final

import kombu
from kombu.utils.url import parse_url
from redis.exceptions import RedisError

from outbox_relay.errors import BrokerLost, SettingsError

CONNECT_TIMEOUT: Final = 5.0
#: Schemes kombu does not know, and what it calls the same thing.
ALIASES: Final = {"valkey": "redis", "valkeys": "rediss"}
#: Those of Celery's broker_transport_options that the relay sets by itself.
OURS: Final = {
    "retry_on_timeout": False,
    "socket_timeout": CONNECT_TIMEOUT,
    "socket_connect_timeout": CONNECT_TIMEOUT,
    "socket_keepalive": True,
}


@dataclass(frozen=True, slots=True)
class Server:
    """An open Redis: kombu's channel, and a redis-py connection nobody else uses."""

    channel: Any
    connection: Any

    def close(self) -> None:
        """Close both, without a word to the server, which may be frozen."""
        self.connection.disconnect()
        # Else kombu would delete the bindings of auto-delete queues that it knows of, even others'.
        self.channel.auto_delete_queues.clear()
        self.channel.close()


def open_server(url: str, options: dict[str, Any]) -> Server:
    """Connect. Raises BrokerLost, or SettingsError where no attempt could succeed."""
    scheme, _, rest = url.partition("://")
    url = f"{ALIASES.get(scheme, scheme)}://{rest}"
    try:
        described = kombu.Connection(
            url,
            # Without options of its own in the URL, kombu would not check the certificate.
            ssl={"ssl_cert_reqs": "required"} if url.startswith("rediss://") else False,
            transport_options={**options, **OURS},
        )
    except (KeyError, TypeError, ValueError) as error:  # KeyError: over a value of ssl_cert_reqs
        raise SettingsError(f"OUTBOX_BROKER_URL: {error}") from error
    try:
        # The transport's own methods: Connection.connect() retries and sleeps by itself.
        transport: Any = described.transport
        channel = transport.create_channel(transport)
        connection = channel.pool.make_connection()
        connection.connect()
    except (OSError, RedisError) as error:
        parts = parse_url(url)
        where = f"{parts['hostname']}:{parts['port'] or described.get_transport_cls().default_port}"
        words = str(error) or type(error).__name__
        raise BrokerLost(f"cannot connect to the broker at {where}: {words}") from error
    except (TypeError, ValueError) as error:
        raise SettingsError(f"OUTBOX_BROKER_TRANSPORT_OPTIONS: {error}") from error
    return Server(channel, connection)

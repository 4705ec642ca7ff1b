"""Opens connections through kombu: addresses, TLS with the host name checked, login."""

import ssl
from typing import Any, Final

import amqp
import kombu
from amqp.exceptions import AMQPError
from kombu.utils.url import parse_url

from outbox_relay.broker.opening import Background
from outbox_relay.errors import BrokerLost, SettingsError

CONNECT_TIMEOUT: Final = 5.0
HEARTBEAT: Final = 10.0
#: The TLS options that a URL may have, named as kombu names them for Redis, and py-amqp's names.
#: None of them switches the check of certificates off.
TLS: Final = {"ssl_ca_certs": "ca_certs", "ssl_certfile": "certfile", "ssl_keyfile": "keyfile"}


def open_connection(url: str) -> amqp.Connection:
    """A connection that is up, or BrokerLost with a reason that names no password.

    Every step of the handshake is bounded by CONNECT_TIMEOUT seconds.
    """
    try:
        parts: dict[str, Any] = parse_url(url)
    except KeyError as error:  # kombu's, over a value of ssl_cert_reqs
        raise SettingsError(f"OUTBOX_BROKER_URL: ssl_cert_reqs cannot be {error}") from error
    secure = parts["transport"] == "amqps"
    described = kombu.Connection(
        url,
        connect_timeout=CONNECT_TIMEOUT,
        heartbeat=HEARTBEAT,
        transport_options={"read_timeout": CONNECT_TIMEOUT, "write_timeout": CONNECT_TIMEOUT},
    )
    # Not an argument, which options in the URL would replace as a whole.
    described.ssl = _tls(parts) if secure else False
    try:
        # The transport's own method: Connection.connect() retries and sleeps by itself.
        connection: amqp.Connection = described.transport.establish_connection()
    except (OSError, AMQPError) as error:
        where = f"{parts['hostname']}:{parts['port'] or (5671 if secure else 5672)}"
        words = words_of(error)
        raise BrokerLost(f"cannot connect to the broker at {where}: {words}") from error
    return connection


class BackgroundOpening(Background[amqp.Connection]):
    """Opens a connection while others work."""

    def __init__(self, url: str) -> None:
        super().__init__(lambda: open_connection(url), amqp.Connection.collect)


def _tls(parts: dict[str, Any]) -> dict[str, Any]:
    """Options for py-amqp, which checks a certificate's name only if told which to expect."""
    given: dict[str, str] = parts.get("ssl", {})
    if unknown := given.keys() - TLS.keys():
        raise SettingsError(
            f"OUTBOX_BROKER_URL: {min(unknown)} is not an option of amqps://, whose certificates "
            f"are always checked; there are: {', '.join(TLS)}"
        )
    options = {TLS[name]: value for name, value in given.items()}
    return {**options, "server_hostname": parts["hostname"], "cert_reqs": ssl.CERT_REQUIRED}


def words_of(error: Exception) -> str:
    """What the broker said: its code and its words, without py-amqp's numbers of a method."""
    if isinstance(error, AMQPError) and error.reply_text:
        return f"{error.reply_code or ''} {error.reply_text}".strip()
    return str(error) or type(error).__name__

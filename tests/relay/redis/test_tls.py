"""TLS: the server's certificate is checked, its name as well, without being asked to."""

import asyncio
import shutil
import ssl
import subprocess
import threading
from collections.abc import Iterator
from pathlib import Path

import pytest

from outbox_relay.errors import BrokerLost
from servers import Valkey
from tests.relay.messages import messages
from tests.relay.redis.conftest import OpenPublisher, publish


@pytest.fixture(scope="module")
def certificate(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A certificate for `localhost` that is its own authority, and its key, in one file."""
    openssl = shutil.which("openssl")
    if openssl is None:
        pytest.skip("no openssl to make a certificate with")
    folder = tmp_path_factory.mktemp("tls")
    new = ["req", "-x509", "-days", "2", "-nodes"]
    key = ["-newkey", "ec", "-pkeyopt", "ec_paramgen_curve:prime256v1"]
    name = ["-subj", "/CN=localhost", "-addext", "subjectAltName=DNS:localhost"]
    files = ["-keyout", "key.pem", "-out", "cert.pem"]
    subprocess.run(
        [openssl, *new, *key, *name, *files], cwd=folder, check=True, capture_output=True
    )
    both = folder / "both.pem"
    both.write_text((folder / "cert.pem").read_text() + (folder / "key.pem").read_text())
    return both


@pytest.fixture
def tls_port(valkey: Valkey, certificate: Path) -> Iterator[int]:
    """A port where the server speaks TLS, by way of a tunnel: the test server itself cannot."""
    context = ssl.create_default_context(ssl.Purpose.CLIENT_AUTH)
    context.load_cert_chain(certificate)
    loop = asyncio.new_event_loop()

    async def pipe(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        while data := await reader.read(1 << 16):
            writer.write(data)
            await writer.drain()
        writer.close()

    async def tunnel(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        inner = await asyncio.open_connection("127.0.0.1", valkey.port)
        await asyncio.gather(pipe(reader, inner[1]), pipe(inner[0], writer), return_exceptions=True)

    server = loop.run_until_complete(asyncio.start_server(tunnel, "127.0.0.1", 0, ssl=context))
    thread = threading.Thread(target=loop.run_forever, daemon=True)
    thread.start()
    yield server.sockets[0].getsockname()[1]
    loop.call_soon_threadsafe(loop.stop)
    thread.join()
    loop.close()


def test_messages_go_through_tls(
    valkey: Valkey, tls_port: int, certificate: Path, open_publisher: OpenPublisher
) -> None:
    """With the authority named in the URL, as kombu has it."""
    url = f"rediss://:{valkey.password}@localhost:{tls_port}/0?ssl_ca_certs={certificate}"
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
    valkey: Valkey, tls_port: int, certificate: Path, open_publisher: OpenPublisher
) -> None:
    """The name in the URL has to be the name in the certificate."""
    url = f"rediss://:{valkey.password}@127.0.0.1:{tls_port}/0?ssl_ca_certs={certificate}"

    with pytest.raises(BrokerLost, match="CERTIFICATE_VERIFY_FAILED"):
        open_publisher(url)

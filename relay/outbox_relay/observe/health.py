"""`/metrics`, `/livez` and `/readyz`, read-only, on threads of their own.

However slowly others ask, the next is answered: each request has its time, the oldest gives way.
Alive means that a round of the loop has begun lately. Ready means broker and database are there.
"""

import errno
import socket
from contextlib import suppress
from http import HTTPStatus
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from time import monotonic
from typing import Any, ClassVar, Final
from urllib.parse import parse_qs

from prometheus_client import CollectorRegistry, generate_latest
from prometheus_client.exposition import CONTENT_TYPE_LATEST

from outbox_relay.core.thread import ContextThread
from outbox_relay.errors import SettingsError

#: Longer than any single wait of the loop (a statement, a connection attempt, a back-off).
STALLED_SECONDS: Final = 45.0
#: A client that takes longer than this to ask and be answered is cut off.
REQUEST_SECONDS: Final = 5.0
#: Clients at a time; one more, and the oldest is cut off.
MAX_CLIENTS: Final = 32

#: The usual reason, and the ways out.
TAKEN: Final = (
    ". Another relay on this machine is the likely one (ss -ltnp 'sport = :{port}'): give "
    "each an address of its own, or `off`"
)


class Health:
    """What the loop says of itself; written by it, read by the endpoint."""

    def __init__(self) -> None:
        self.broker_up = False
        self.database_up = False
        self._progress = monotonic()

    def progress(self) -> None:
        """A round of the loop begins."""
        self._progress = monotonic()

    @property
    def alive(self) -> bool:
        """Whether a round has begun lately."""
        return monotonic() - self._progress < STALLED_SECONDS

    @property
    def ready(self) -> bool:
        """Whether messages can be published now."""
        return self.alive and self.broker_up and self.database_up

    @property
    def summary(self) -> str:
        """Whether it is ready, and else why not, as `/readyz` answers."""
        if self.ready:
            return "ready"
        servers = (("broker", self.broker_up), ("database", self.database_up))
        missing = [name for name, up in servers if not up]
        return f"no connection to: {', '.join(missing)}" if missing else "stalled"

    def of(self, outbox: str) -> "Health | None":
        """That of an outbox by its name, where it is one of many; itself without a name."""
        return None if outbox else self


class Endpoint:
    """The HTTP server; a context manager that stops it."""

    def __init__(
        self, address: tuple[str, int], health: Health, registry: CollectorRegistry
    ) -> None:
        handler = type("Handler", (_Handler,), {"health": health, "registry": registry})
        try:
            self._server = _Server(address, handler)
        except OSError as error:
            host, port = address
            taken = error.errno == errno.EADDRINUSE
            raise SettingsError(
                f"OUTBOX_HTTP_ADDRESS: cannot listen on {host}:{port}: {error.strerror}"
                f"{TAKEN.format(port=port) if taken else ''}"
            ) from error
        self._thread = ContextThread(target=self._server.serve_forever, name="http", daemon=True)

    def __enter__(self) -> "Endpoint":
        self._thread.start()
        return self

    def __exit__(self, *_: object) -> None:
        self._server.shutdown()
        self._server.server_close()


class _Server(ThreadingHTTPServer):
    """Each request on a thread, and none for long."""

    daemon_threads = True

    def __init__(self, address: tuple[str, int], handler: type[BaseHTTPRequestHandler]) -> None:
        super().__init__(address, handler)
        self._since: dict[Any, float] = {}

    def process_request(self, request: Any, client_address: Any) -> None:
        """Serve a client; cut the oldest off if there are too many."""
        if len(self._since) >= MAX_CLIENTS:
            self._cut_off(next(iter(self._since)))
        self._since[request] = monotonic()
        super().process_request(request, client_address)

    def shutdown_request(self, request: Any) -> None:
        """Forget a client that was answered, or is gone."""
        self._since.pop(request, None)
        super().shutdown_request(request)

    def service_actions(self) -> None:
        """Cut off clients that take too long; called twice a second."""
        for request, since in list(self._since.items()):
            if monotonic() - since > REQUEST_SECONDS:
                self._cut_off(request)

    def handle_error(self, request: Any, client_address: Any) -> None:
        """Log nothing: a client that goes away is not an event."""

    def _cut_off(self, request: Any) -> None:
        self._since.pop(request, None)
        with suppress(OSError):  # it has closed by itself
            request.shutdown(socket.SHUT_RDWR)


class _Handler(BaseHTTPRequestHandler):
    health: ClassVar[Health]
    registry: ClassVar[CollectorRegistry]
    timeout = REQUEST_SECONDS
    server_version = "outbox-relay"
    sys_version = ""

    def do_GET(self) -> None:
        path, _, query = self.path.partition("?")
        match path:
            case "/metrics":
                self._answer(HTTPStatus.OK, generate_latest(self.registry), CONTENT_TYPE_LATEST)
            case "/livez":
                alive = self.health.alive
                self._verdict(alive, "alive" if alive else "the loop has stalled")
            case "/readyz":
                self._ready(parse_qs(query).get("outbox"))
            case _:
                self._answer(HTTPStatus.NOT_FOUND, b"/metrics, /livez or /readyz\n")

    do_HEAD = do_GET

    def do_POST(self) -> None:
        self.send_response(HTTPStatus.METHOD_NOT_ALLOWED)
        self.send_header("Allow", "GET, HEAD")
        self.send_header("Content-Length", "0")
        self.end_headers()

    do_PUT = do_DELETE = do_PATCH = do_OPTIONS = do_TRACE = do_CONNECT = do_POST

    def _ready(self, outbox: list[str] | None) -> None:
        """Whether all is ready, or the one of many that is asked for (`?outbox=NAME`)."""
        health = self.health.of(outbox[0] if outbox else "")
        if health is None:
            self._answer(HTTPStatus.NOT_FOUND, b"no outbox of that name is served here\n")
        else:
            self._verdict(health.ready, health.summary)

    def _verdict(self, good: bool, text: str) -> None:
        status = HTTPStatus.OK if good else HTTPStatus.SERVICE_UNAVAILABLE
        self._answer(status, f"{text}\n".encode())

    def _answer(self, status: HTTPStatus, body: bytes, kind: str = "text/plain") -> None:
        self.send_response(status)
        self.send_header("Content-Type", kind)
        self.send_header("Content-Length", str(len(body)))
        self.end_headers()
        if self.command != "HEAD":
            self.wfile.write(body)

    def log_message(self, format: str, *args: object) -> None:
        """Log nothing: a probe every few seconds is not an event."""

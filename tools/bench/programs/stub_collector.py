"""A collector that takes whatever it is sent and keeps only how many bytes that were.

Run as `python -m bench.programs.stub_collector`; prints its URL, and ends with its parent (its
standard input closes). `GET /` answers with the bytes.
"""

import sys
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from urllib.request import urlopen

from bench.programs.child import first_line, started


@contextmanager
def stub_collector() -> Iterator[str]:
    """Run one for the length of a block: its URL."""
    with started(__name__) as process:
        yield first_line(process)


def taken(url: str) -> int:
    """How many bytes it was sent so far."""
    with urlopen(url, timeout=10) as answer:
        return int(answer.read())


class Handler(BaseHTTPRequestHandler):
    """Answers at once."""

    protocol_version = "HTTP/1.1"  # connections are kept, as by a real one
    taken = 0

    def do_POST(self) -> None:
        """Take an export request."""
        Handler.taken += len(self.rfile.read(int(self.headers["Content-Length"])))
        self._answer(b"")

    def do_GET(self) -> None:
        """Tell how much that was."""
        self._answer(str(Handler.taken).encode())

    def _answer(self, body: bytes) -> None:
        self.send_response(200)
        self.send_header("Content-Length", str(len(body)))
        self.end_headers()
        self.wfile.write(body)

    def log_message(self, *_: object) -> None:
        """Say nothing."""


def main() -> None:
    """Listen on a free port until standard input closes."""
    with ThreadingHTTPServer(("127.0.0.1", 0), Handler) as server:
        print(f"http://127.0.0.1:{server.server_port}", flush=True)
        threading.Thread(target=server.serve_forever, daemon=True).start()
        sys.stdin.read()
        server.shutdown()


if __name__ == "__main__":
    main()

"""The socket under a publisher: how long the kernel may wait for a peer that reads nothing."""

import socket
from collections.abc import Iterator

import pytest

from outbox_relay.broker import link as link_module
from outbox_relay.broker.link import Link
from outbox_relay.errors import BrokerLost
from tests.fixtures.waiting import wait_until

DEADLINE = 30.0


@pytest.fixture
def deaf() -> Iterator[list[socket.socket]]:
    """Sockets whose peers are there and read nothing."""
    sockets: list[socket.socket] = []
    with socket.create_server(("127.0.0.1", 0)) as server:
        for _ in range(2):
            sockets += [socket.create_connection(server.getsockname()), server.accept()[0]]
        yield sockets[::2]
    for each in sockets:
        each.close()


def test_only_an_announced_wait_outlasts_the_kernels(
    deaf: list[socket.socket], monkeypatch: pytest.MonkeyPatch
) -> None:
    """An alarm may last for hours; without one, silence is a broken connection."""
    monkeypatch.setattr(link_module, "USER_TIMEOUT_MS", 500)
    announced, silent = (Link(sock, 0, b"") for sock in deaf)
    announced.patient(True)
    for each in (announced, silent):
        each.send(bytes(32 << 20))

    def broken(link: Link) -> bool:
        try:
            link.pump(0.05)
        except BrokerLost:
            return True
        return False

    wait_until(lambda: broken(silent), DEADLINE, "the kernel to give up")

    assert not broken(announced)
    announced.patient(False)
    wait_until(lambda: broken(announced), DEADLINE, "the kernel to give up on that one too")

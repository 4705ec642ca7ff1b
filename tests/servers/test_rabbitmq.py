"""The private RabbitMQ node: durable, alone on its ports, gone with its parent."""

import shutil
import subprocess
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from threading import Event
from typing import Any

import pytest
from kombu import Connection, Queue

from servers import ServerMissing, debian, rabbitmq_packages
from servers.processes import is_alive
from tests.fixtures.broker import Broker, OwnRabbitMQ
from tests.servers.conftest import LeftBehind, mentioning


def test_confirmed_messages_survive_a_crash(own_rabbitmq: OwnRabbitMQ) -> None:
    """A persistent, confirmed message is there after SIGKILL and a start on the same port."""
    node = own_rabbitmq()
    host = Broker(node, node.create_vhost())
    send(host, "kept", b"7")
    pids = node.pids()

    node.kill()
    assert not any(map(is_alive, pids))
    node.start()

    assert [message.body for message in host.take_all("kept")] == [b"7"]
    node.stop()
    assert mentioning(node.folder) == []


def test_virtual_hosts_do_not_meet(broker: Broker) -> None:
    """A queue of one virtual host is unknown to another."""
    other = Broker(broker.node, broker.node.create_vhost())
    broker.declare("here")

    assert broker.has("here")
    assert not other.has("here")

    broker.node.delete_vhost(other.vhost)
    assert other.vhost not in broker.node.ctl("list_vhosts")


def test_queues_are_inspected_as_clients_see_them(broker: Broker) -> None:
    """Messages are counted, and taken in order with what they carry."""
    send(broker, "tasks", b"1", priority=3, headers={"task": "one"})
    send(broker, "tasks", b"2")

    assert broker.depth("tasks") == 2
    first, second = broker.take_all("tasks")
    assert (first.json(), first.headers, first.properties["priority"]) == (1, {"task": "one"}, 3)
    assert (second.routing_key, second.exchange) == ("tasks", "")
    assert broker.depth("tasks") == 0
    assert "tasks\t0" in broker.ctl("list_queues")


@pytest.mark.parametrize("state", ["running", "frozen"])
def test_gone_with_its_parent(
    rabbitmq_root: Path, tmp_path: Path, state: str, assert_gone_with_parent: LeftBehind
) -> None:
    """No process, epmd included, is left when the parent is SIGKILLed, even a frozen one's."""
    assert rabbitmq_root.is_absolute()
    assert_gone_with_parent("RabbitMQ", tmp_path / "node", state)


def test_without_packages_the_way_out_is_named(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Where there is no apt, the error says what to install or to set."""
    monkeypatch.setattr(shutil, "which", lambda _: None)

    with pytest.raises(ServerMissing, match="RABBITMQ=off"):
        rabbitmq_packages.fetch(tmp_path)


def test_a_failed_download_leaves_nothing_that_looks_complete(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The unpacked tree has its name only when it is whole, and the next try starts afresh."""
    commands: list[list[str]] = []

    def run(command: list[str], *_: object, **__: object) -> subprocess.CompletedProcess[str]:
        commands.append(command)
        if command[:2] == ["apt-get", "download"]:
            (tmp_path / "rabbitmq.unfinished" / "usr").mkdir()
            raise subprocess.CalledProcessError(100, command, "", "E: connection failed")
        return subprocess.CompletedProcess(command, 0, "", "")

    monkeypatch.setattr(subprocess, "run", run)
    for _ in range(2):
        with pytest.raises(ServerMissing, match="connection failed"):
            rabbitmq_packages.fetch(tmp_path)

    assert not (tmp_path / "rabbitmq").exists()
    assert len([command for command in commands if command[1] == "update"]) == 2


def test_whoever_fetches_second_uses_what_the_first_unpacked(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Two processes that need RabbitMQ at once unpack it one time."""
    second_came = Event()
    unpacked: list[Path] = []

    def unpack(root: Path, _: debian.Bundle) -> None:
        assert second_came.wait(10)
        root.mkdir()
        unpacked.append(root)

    def come_second() -> Path:
        second_came.set()
        return rabbitmq_packages.fetch(tmp_path)

    monkeypatch.setattr(debian, "_unpack", unpack)
    with ThreadPoolExecutor() as executor:
        first = executor.submit(rabbitmq_packages.fetch, tmp_path)
        second = executor.submit(come_second)

    assert first.result() == second.result() == tmp_path / "rabbitmq"
    assert len(unpacked) == 1


def send(host: Broker, queue: str, body: bytes, **properties: Any) -> None:
    """Publish a persistent message to a durable queue and wait for the confirm."""
    options = {"confirm_publish": True}
    with Connection(host.url, transport_options=options) as connection:
        producer = connection.Producer()
        producer.publish(
            body,
            routing_key=queue,
            declare=[Queue(queue, durable=True)],
            delivery_mode=2,
            content_type="application/octet-stream",
            content_encoding="binary",
            **properties,
        )

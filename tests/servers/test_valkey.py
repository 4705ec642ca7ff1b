"""The private Valkey: durable, alone on its port, gone with its parent."""

from pathlib import Path

import pytest
import redis

from servers.processes import is_alive
from tests.fixtures.valkey import OwnValkey
from tests.servers.conftest import LeftBehind


def test_accepted_writes_survive_a_crash(own_valkey: OwnValkey) -> None:
    """What was written is there after SIGKILL and a start on the same port."""
    server = own_valkey()
    with redis.Redis.from_url(server.url) as client:
        client.rpush("kept", "7")

    server.kill()
    server.start()

    with redis.Redis.from_url(server.url) as client:
        assert client.lrange("kept", 0, -1) == [b"7"]


def test_settings_reach_the_server(own_valkey: OwnValkey) -> None:
    """Settings given win over the defaults."""
    server = own_valkey({"appendonly": "no"})

    with redis.Redis.from_url(server.url) as client:
        assert client.config_get("appendonly") == {"appendonly": "no"}


def test_other_users_of_the_machine_are_kept_out(valkey_url: str) -> None:
    """Loopback is shared by everybody on the machine, so a password is asked for."""
    _, _, address = valkey_url.rpartition("@")

    with (
        redis.Redis.from_url(f"redis://{address}") as client,
        pytest.raises(redis.AuthenticationError),
    ):
        client.ping()


def test_nothing_is_left_after_stop(own_valkey: OwnValkey) -> None:
    """Stopping ends the process; stopping again is harmless."""
    server = own_valkey()
    pids = server.pids()

    server.stop()
    server.stop()

    assert not any(map(is_alive, pids))


@pytest.mark.parametrize("state", ["running", "frozen"])
def test_gone_with_its_parent(
    tmp_path: Path, state: str, assert_gone_with_parent: LeftBehind
) -> None:
    """No process is left when the parent is SIGKILLed, even while the server is frozen."""
    assert_gone_with_parent("Valkey", tmp_path / "server", state)

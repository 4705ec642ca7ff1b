"""A Postgres that Patroni runs, as a member of a cluster: what it starts ends with it.

Patroni is a package of an environment of its own (`make test-cluster` makes it), etcd is Debian's.
It lives in a namespace of processes, because it lets the Postgres it starts go.
"""

import json
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from time import sleep
from typing import Any, Final
from urllib.error import HTTPError, URLError
from urllib.request import Request, urlopen

from servers.errors import ServerMissing
from servers.identity import Identity, unprivileged
from servers.ports import free_port
from servers.postgres import find_binaries
from servers.server import Command, Server

_ENVIRONMENT: Final = Path(__file__).resolve().parents[2] / ".patroni"
#: A namespace of processes, which all end with the first; it takes one of users to be allowed to.
_NAMESPACE: Final = (
    *("unshare", "--user", "--map-current-user"),
    *("--pid", "--fork", "--kill-child", "--mount-proc"),
)
_PAUSE: Final = 0.2
#: The shortest that Patroni allows: seconds until a leader that is not heard of is replaced.
TTL: Final = 20


@dataclass(frozen=True, slots=True)
class Doors:
    """The ports by which others reach a member, and by which it reaches etcd: of a network."""

    postgres: int
    patroni: int
    etcd: int


class PatroniMember(Server):
    """One of them. Its own ports are known before the network in front of them is made."""

    name = "patroni"
    start_seconds = 240

    def __init__(self, folder: Path, name: str, password: str, *, synchronous: bool) -> None:
        """Prepare a member; `doors` are to be set before it starts."""
        self._identity = _not_root()
        super().__init__(self._identity.home(folder))
        self.member, self._password, self._synchronous = name, password, synchronous
        self.rest_port = free_port()
        self.doors = Doors(self.port, self.rest_port, 0)

    def is_primary(self) -> bool:
        """Whether it says so itself."""
        return self._status("primary") == 200

    def is_well(self) -> bool:
        """Whether its Postgres works, as a primary or as a standby that streams."""
        if not self.is_running or self._status("health") != 200:
            return False
        return self.is_primary() or self._status("replica?replication_state=streaming") == 200

    def switch_over(self) -> None:
        """Have Patroni make another member the leader."""
        body = json.dumps({"leader": self.member}).encode()
        request = Request(self._url("switchover"), body, {"Content-Type": "application/json"})
        with urlopen(request, timeout=60) as answer:
            answer.read()

    def _url(self, path: str) -> str:
        return f"http://127.0.0.1:{self.rest_port}/{path}"

    def _status(self, path: str) -> int:
        sleep(_PAUSE)  # each question costs Patroni one to its Postgres
        try:
            with urlopen(self._url(path), timeout=2) as answer:
                return int(answer.status)
        except HTTPError as error:
            return error.code
        except (URLError, OSError):
            return 0

    def _is_ready(self) -> bool:
        return self._status("health") == 200

    def _command(self) -> Command:
        program = _ENVIRONMENT / "bin/patroni"
        if not program.exists():
            raise ServerMissing("no Patroni: make test-cluster has it")
        settings = self.folder / "patroni.json"  # which is YAML as well
        settings.touch(mode=0o600)
        settings.write_text(json.dumps(self._settings(), indent=1))
        argv = [*_NAMESPACE, str(program), str(settings)]
        return Command(argv, identity=self._identity)

    def _settings(self) -> dict[str, Any]:
        doors, login = self.doors, {"username": "postgres", "password": self._password}
        return {
            "scope": "outbox",
            "name": self.member,
            "restapi": {
                "listen": f"127.0.0.1:{self.rest_port}",
                "connect_address": f"127.0.0.1:{doors.patroni}",
            },
            # Else it would ask etcd for its other addresses, past the network in between.
            "etcd3": {"hosts": [f"127.0.0.1:{doors.etcd}"], "use_proxies": True},
            "bootstrap": {
                "dcs": {
                    "ttl": TTL,
                    "loop_wait": 2,
                    "retry_timeout": 5,
                    "maximum_lag_on_failover": 16 << 20,
                    "synchronous_mode": self._synchronous,
                    "postgresql": {"use_pg_rewind": True, "parameters": _PARAMETERS},
                },
                "initdb": [{"encoding": "UTF8"}, {"locale": "C"}, "data-checksums"],
            },
            "postgresql": {
                "listen": f"127.0.0.1:{self.port}",
                "connect_address": f"127.0.0.1:{doors.postgres}",
                "data_dir": str(self.folder / "data"),
                "bin_dir": str(find_binaries()),
                "pgpass": str(self.folder / "pgpass"),
                "authentication": {"superuser": login, "replication": login},
                "parameters": {"unix_socket_directories": "", "fsync": "on"},
                "pg_hba": [
                    "host all all 127.0.0.1/32 scram-sha-256",
                    "host replication all 127.0.0.1/32 scram-sha-256",
                ],
                "remove_data_directory_on_rewind_failure": True,
                "remove_data_directory_on_diverged_timelines": True,
            },
        }


_PARAMETERS: Final[Mapping[str, Any]] = {
    "max_connections": 50,
    "wal_log_hints": "on",
    "wal_keep_size": "512MB",
    "shared_buffers": "64MB",
}


def _not_root() -> Identity:
    """Whom Postgres may run as, in a namespace of users."""
    identity = unprivileged()
    if identity.user is not None:
        raise ServerMissing("Patroni needs namespaces, which are off on this machine")
    return identity

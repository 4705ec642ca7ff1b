"""Three members of a Patroni cluster behind networks that can fail, and what strikes them."""

from contextlib import ExitStack, suppress
from pathlib import Path
from typing import Any, Final, LiteralString

import psycopg

from servers.etcd import Etcd
from servers.haproxy import HAProxy
from servers.patroni import Doors, PatroniMember
from servers.processes import tail
from tests.faults.proxy import Proxy
from tests.fixtures.waiting import wait_until

#: Longer than Patroni takes to give a leader up and to make another.
SECONDS: Final = 90.0
_PASSWORD: Final = "of-a-test-alone"


#: What standbys may be behind, and what a commit may take that waits for one.
_STEP_SECONDS: Final = 5.0
_SOON: Final = "-c statement_timeout=5s"

MARKS: LiteralString = "CREATE TABLE IF NOT EXISTS mark (id bigserial)"
MARK: LiteralString = "INSERT INTO mark DEFAULT VALUES RETURNING id"
NEWEST: LiteralString = "SELECT max(id) FROM mark"


def _newest(url: str) -> Any:
    with psycopg.connect(url, connect_timeout=2, options=_SOON) as connection:
        return connection.execute(NEWEST).fetchone()


def _takes_writes(url: str) -> bool:
    with suppress(psycopg.OperationalError), psycopg.connect(url) as connection:
        return connection.execute("SELECT pg_is_in_recovery()").fetchone() == (False,)
    return False


class Member:
    """A server, and the three ways that lead to it and from it."""

    def __init__(self, server: PatroniMember, etcd: int, stack: ExitStack) -> None:
        """Build the network."""
        self.server = server
        ports = (server.port, server.rest_port, etcd)
        self._network = [stack.enter_context(Proxy(port)) for port in ports]
        self.doors = server.doors = Doors(*(proxy.port for proxy in self._network))

    def strike(self, how: str) -> None:
        """Kill or freeze it, cut it off, or have it step down."""
        match how:
            case "kill":
                self.server.kill()
            case "freeze":
                self.server.freeze()
            case "partition":
                for proxy in self._network:  # nobody hears of it, and it hears of nobody
                    proxy.refuse()
            case _:
                self.server.switch_over()

    def heal(self) -> None:
        """Whatever struck it is over."""
        for proxy in self._network:
            proxy.heal()
        self.server.thaw()
        if not self.server.is_running:
            self.server.start()


class PatroniCluster:
    """Everything that a cluster is made of; ends with the `stack`."""

    def __init__(self, folder: Path, stack: ExitStack, *, synchronous: bool) -> None:
        """Start it; it has a leader and two standbys."""
        self.synchronous = synchronous
        etcd = Etcd(folder / "etcd")
        stack.callback(etcd.discard)
        etcd.start()
        self.members: list[Member] = []
        for name in ("one", "two", "three"):
            server = PatroniMember(folder / name, name, _PASSWORD, synchronous=synchronous)
            stack.callback(server.discard)
            self.members.append(Member(server, etcd.port, stack))
            server.start()
            if len(self.members) == 1:
                wait_until(server.is_primary, SECONDS, "a leader")
        doors = [(member.doors.postgres, member.doors.patroni) for member in self.members]
        self.haproxy = HAProxy(folder / "haproxy", doors)
        stack.callback(self.haproxy.discard)
        self.haproxy.start()
        self.wait_whole()
        # Until it has looked, HAProxy takes each of them for the primary.
        door = self.through_haproxy("postgres")
        turns = range(2 * len(self.members))
        wait_until(
            lambda: all(_takes_writes(door) for _ in turns),
            SECONDS,
            "HAProxy's look at its servers",
        )

    @property
    def leader(self) -> Member:
        """The one that says it leads."""
        found = wait_until(self._leaders, SECONDS, "a leader")
        return found[0]

    def wait_whole(self) -> None:
        """Wait until one leads and two follow; what Patroni says is shown where that fails."""
        try:
            wait_until(self._is_whole, 2 * SECONDS, "a leader and two standbys")
        except AssertionError as error:
            for member in self.members:
                error.add_note(f"{member.server.member}:\n{tail(member.server.log)}")
            raise

    def through_haproxy(self, database: str) -> str:
        """The URL of a database behind HAProxy."""
        return self._url(f"127.0.0.1:{self.haproxy.port}", database)

    def anywhere(self, database: str) -> str:
        """The URL of a database with all members, of which one takes writes."""
        hosts = ",".join(f"127.0.0.1:{member.doors.postgres}" for member in self.members)
        return self._url(hosts, f"{database}?target_session_attrs=read-write&connect_timeout=2")

    def others_than(self, old: Member, database: str) -> list[str]:
        """The URLs of a database on all others, past HAProxy and whatever strikes the network."""
        ports = [member.server.port for member in self.members if member is not old]
        return [self._url(f"127.0.0.1:{port}", database) for port in ports]

    def _is_whole(self) -> bool:
        """Whether all say that they are well, and have what the leader has just committed.

        One that has to be rewound streams, too, until Patroni notices. To strike then is to strike
        two at once: it may need what only the struck one has, and nobody follows the next leader.
        """
        leaders = self._leaders()
        if not (all(member.server.is_well() for member in self.members) and len(leaders) == 1):
            return False
        leader, *urls = (
            self._url(f"127.0.0.1:{member.server.port}", "postgres")
            for member in (*leaders, *self.members)
        )
        with suppress(psycopg.Error, AssertionError):
            with psycopg.connect(leader, connect_timeout=2, options=_SOON) as connection:
                connection.execute(MARKS)
                mark = connection.execute(MARK).fetchone()
            wait_until(lambda: all(_newest(url) == mark for url in urls), _STEP_SECONDS, "a mark")
            return True
        return False

    def _leaders(self) -> list[Member]:
        return [member for member in self.members if member.server.is_primary()]

    def _url(self, hosts: str, place: str) -> str:
        return f"postgresql://postgres:{_PASSWORD}@{hosts}/{place}"

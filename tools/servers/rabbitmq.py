"""A private RabbitMQ node that shares nothing with any other: name, ports, cookie, data and epmd.

A test gets a virtual host of its own, made in milliseconds; a node of its own costs seconds. Only
the nodes of a `RabbitCluster` know one another.
"""

import os
import socket
import subprocess
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from time import monotonic, sleep
from typing import Self
from uuid import uuid4

from servers.epmd import Epmd
from servers.ports import free_port
from servers.rabbitmq_packages import find_or_fetch
from servers.server import Command, Server, kept_secret

_NODE = "outbox@localhost"  # its own epmd knows no other; localhost resolves without DNS
_USER = "outbox"
_DEFAULTS = {
    "loopback_users": "none",
    "log.console": "false",
    "log.file": "node.log",
    "disk_free_limit.absolute": "50MB",
}
_LOOPBACK = "-kernel inet_dist_use_interface {127,0,0,1}"
# Several nodes share few cores here: an idle one must not spin while it waits for work.
_NO_SPINNING = "+sbwt none +sbwtdcpu none +sbwtdio none"
_PROTOCOL_HEADER = b"AMQP\x00\x00\x09\x01"
_METHOD_FRAME = b"\x01"
_ANY = '<<".*">>'
_CONTROL_SECONDS = 60
# What erl_call says when it never reached the node, which evaluated nothing then: on a busy machine
# a node may break off several greetings in a row, and takes a later one.
_NOT_REACHED = "failed to connect to node"
_GREETING_SECONDS = 20.0
_GREET_EVERY_SECONDS = 0.2

# Debian's `erl` knows only /usr/lib/erlang; this one runs an unpacked installation.
_ERL = """\
#!/bin/sh
ROOTDIR={erlang} BINDIR={binaries} EMU=beam PROGNAME=erl
export ROOTDIR BINDIR EMU PROGNAME
exec "$BINDIR/erlexec" "$@"
"""
# RabbitMQ 4's rabbitmqctl runs by it, which else looks for the `erl` beside itself.
_ESCRIPT = """\
#!/bin/sh
ESCRIPT_EMULATOR={erl} exec {erlang}/bin/escript "$@"
"""


@dataclass(frozen=True, slots=True)
class Membership:
    """A node's name in its cluster, and what the nodes share: an epmd, a folder for the secrets."""

    node: str
    epmd: Epmd
    secrets: Path


class RabbitMQ(Server):
    """One node, with an epmd of its own that nobody else's nodes register at, or in a cluster."""

    name = "rabbitmq"
    start_seconds = 90
    stop_seconds = 30

    def __init__(
        self,
        folder: Path,
        settings: Mapping[str, str] | None = None,
        root: Path | None = None,
        member: Membership | None = None,
    ) -> None:
        """Prepare a node; ``settings`` are lines of rabbitmq.conf and win over the defaults."""
        super().__init__(folder)
        self.root = root or find_or_fetch()
        self.settings = {**_DEFAULTS, **(settings or {})}
        self._alone = member is None
        self._member = member or Membership(
            _NODE, Epmd(self.folder / "epmd", self.root), self.folder
        )
        self.password = kept_secret(self._member.secrets / "password")
        self._distribution_port = free_port()

    def url(self, vhost: str = "/") -> str:
        """Return the broker URL of a virtual host, as kombu reads it."""
        return f"amqp://{_USER}:{self.password}@127.0.0.1:{self.port}/{vhost}"

    def create_vhost(self, name: str | None = None) -> str:
        """Create a virtual host with all rights for the user of ``url`` and return its name."""
        name = name or f"v{uuid4().hex}"
        rights = f'<<"{_USER}">>, <<"{name}">>, {_ANY}, {_ANY}, {_ANY}, <<"{_USER}">>'
        self.evaluate(
            f'ok = rabbit_vhost:add(<<"{name}">>, <<"{_USER}">>), '
            f"ok = rabbit_auth_backend_internal:set_permissions({rights})"
        )
        return name

    def permit(self, vhost: str, write: str = ".*") -> None:
        """Let the user of ``url`` write what the pattern matches, and do everything else."""
        rights = f'<<"{_USER}">>, <<"{vhost}">>, {_ANY}, <<"{write}">>, {_ANY}, <<"{_USER}">>'
        self.evaluate(f"ok = rabbit_auth_backend_internal:set_permissions({rights})")

    def delete_vhost(self, name: str) -> None:
        """Delete a virtual host with its queues, closing the connections to it."""
        self.evaluate(f'rabbit_vhost:delete(<<"{name}">>, <<"{_USER}">>)')

    def ctl(self, *arguments: str) -> str:
        """Run rabbitmqctl on this node and return what it prints."""
        return self.command("rabbitmqctl", "--quiet", *arguments)

    def command(self, name: str, *arguments: str) -> str:
        """Run one of RabbitMQ's commands on this node and return what it prints."""
        return self._run([str(self.root / "usr/lib/rabbitmq/bin" / name), *arguments], "")

    def evaluate(self, expressions: str) -> str:
        """Evaluate Erlang inside the node: what rabbitmqctl does, without its second's start."""
        erl_call = str(self.root / "usr/lib/erlang/bin/erl_call")
        answer = self._run(
            [erl_call, "-n", self.node, "-e"], f"{expressions}.\n", _GREETING_SECONDS
        )
        if not answer.startswith("{ok, "):
            raise RuntimeError(f"{expressions} gave {answer}")
        return answer.removeprefix("{ok, ").removesuffix("}")

    @property
    def node(self) -> str:
        """Its name among Erlang's nodes."""
        return self._member.node

    def start(self) -> Self:
        """Start and return when clients can connect."""
        self._member.epmd.start()
        return super().start()

    def stop(self) -> None:
        """Shut down in order; kill when that takes too long."""
        super().stop()
        if self._alone:
            self._member.epmd.stop()

    def kill(self) -> None:
        """Crash the node, and the epmd that is its own; queues declared until now survive.

        Alone, Mnesia would forget those of its last two seconds, with the messages in them.
        """
        if self._is_ready():
            self.evaluate("mnesia:sync_log()")
        super().kill()
        if self._alone:
            self._member.epmd.kill()

    def _command(self) -> Command:
        self._write_configuration()
        server = self.root / "usr/lib/rabbitmq/bin/rabbitmq-server"
        return Command([str(server)], environment=self._environment())

    def _is_ready(self) -> bool:
        """Whether the node greets an AMQP client, as one that boots or is frozen does not."""
        return _answers(self.port, _PROTOCOL_HEADER, _METHOD_FRAME)

    def _run(self, command: list[str], entered: str, greeting_seconds: float = 0.0) -> str:
        deadline = monotonic() + greeting_seconds
        while True:
            done = subprocess.run(
                command,
                env=self._environment(),
                cwd=self.folder,
                input=entered,
                capture_output=True,
                text=True,
                timeout=_CONTROL_SECONDS,
                check=False,
            )
            if _NOT_REACHED not in done.stderr or monotonic() > deadline:
                break
            sleep(_GREET_EVERY_SECONDS)
        if done.returncode != 0:
            raise RuntimeError(f"{command[0]} failed on {entered or command[1:]}: {done}")
        return done.stdout

    def _write_configuration(self) -> None:
        self._home.mkdir(mode=0o700, exist_ok=True)
        kept_secret(self._home / ".erlang.cookie")
        fixed = {
            "listeners.tcp.1": f"127.0.0.1:{self.port}",
            "default_user": _USER,
            "default_pass": self.password,
        }
        lines = [f"{key} = {value}\n" for key, value in {**self.settings, **fixed}.items()]
        configuration = self.folder / "rabbitmq.conf"
        configuration.touch(mode=0o600)
        configuration.write_text("".join(lines))
        (self.folder / "advanced.config").write_text("[].\n")
        (self.folder / "enabled_plugins").write_text("[].\n")

    def _environment(self) -> dict[str, str]:
        """Name every place and port, so that nothing of /etc/rabbitmq or of the user's applies."""
        foreign = ("RABBITMQ_", "ERL_", "NOTIFY_SOCKET")
        own = {name: value for name, value in os.environ.items() if not name.startswith(foreign)}
        folder = self.folder
        return {
            **own,
            "HOME": str(self._home),
            "LANG": "C.UTF-8",
            "PATH": f"{self._erl_folder()}:{own.get('PATH', os.defpath)}",
            # The script then becomes the node instead of its guardian: signals reach the node.
            "RUNNING_UNDER_SYSTEMD": "true",
            "RABBITMQ_NODENAME": self.node,
            "RABBITMQ_NODE_IP_ADDRESS": "127.0.0.1",
            "RABBITMQ_NODE_PORT": str(self.port),
            "RABBITMQ_DIST_PORT": str(self._distribution_port),
            "RABBITMQ_CONF_ENV_FILE": str(folder / "none.conf"),
            "RABBITMQ_CONFIG_FILE": str(folder / "rabbitmq.conf"),
            "RABBITMQ_CONFIG_FILES": str(folder / "conf.d"),
            "RABBITMQ_ADVANCED_CONFIG_FILE": str(folder / "advanced.config"),
            "RABBITMQ_ENABLED_PLUGINS_FILE": str(folder / "enabled_plugins"),
            "RABBITMQ_GENERATED_CONFIG_DIR": str(folder / "config"),
            "RABBITMQ_MNESIA_BASE": str(folder / "data"),
            "RABBITMQ_LOG_BASE": str(folder / "log"),
            "RABBITMQ_PID_FILE": str(folder / "pid"),
            "RABBITMQ_SERVER_ADDITIONAL_ERL_ARGS": f"{_LOOPBACK} {_NO_SPINNING}",
            "RABBITMQ_CTL_ERL_ARGS": _LOOPBACK,
            "ERL_EPMD_ADDRESS": "127.0.0.1",
            "ERL_EPMD_PORT": str(self._member.epmd.port),
            "ERL_CRASH_DUMP_SECONDS": "0",
        }

    @property
    def _home(self) -> Path:
        """Where Erlang looks for the cookie."""
        return self._member.secrets / "home"

    def _erl_folder(self) -> Path:
        erlang = self.root / "usr/lib/erlang"
        if self.root == Path("/"):
            return erlang / "bin"
        folder = self.folder / "bin"
        if not folder.exists():
            folder.mkdir()
            erl, escript = folder / "erl", folder / "escript"
            binaries = next(erlang.glob("erts-*/bin"))
            erl.write_text(_ERL.format(erlang=erlang, binaries=binaries))
            escript.write_text(_ESCRIPT.format(erlang=erlang, erl=erl))
            for script in (erl, escript):
                script.chmod(0o755)
        return folder


def _answers(port: int, sent: bytes, expected: bytes) -> bool:
    """Whether a loopback port accepts a connection and replies to what is sent as expected."""
    try:
        with socket.create_connection(("127.0.0.1", port), timeout=2) as client:
            client.sendall(sent)
            return client.recv(len(expected)) == expected
    except OSError:
        return False

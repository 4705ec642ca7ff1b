"""The nearest peer, as released: django-celery-outbox drains the same tasks to the same broker.

Only when asked for (`PEERS=1`): it is installed into an environment of its own beside the bench's
reports, and has tables of its own in the same database. It runs as its own command, tuned by its
own flags: larger batches, and several publishing threads. The clock runs from the first
message that the queue has until the last one has left its table.
"""

import json
import os
import shutil
import subprocess
import sys
from dataclasses import dataclass
from pathlib import Path
from time import monotonic, perf_counter, sleep
from typing import Final

from psycopg.conninfo import conninfo_to_dict

from bench import cpu, queues
from bench.lab import Lab, Unbelievable
from bench.queues import Kind
from bench.run import Run
from bench.tasks import ARGUMENTS, NAME
from servers.processes import kill_family, spawn, tail

NAME_OF_PEER: Final = "django-celery-outbox"
PACKAGE: Final = f"{NAME_OF_PEER}==0.4.3"
#: Its own flags for speed.
FLAGS: Final = ("--batch-size", "200", "--publish-concurrency", "4", "--idle-time", "0.1")
PATIENCE_SECONDS: Final = 300
POLL_SECONDS: Final = 0.02

SETTINGS: Final = """
import os
DATABASES = {"default": {"ENGINE": "django.db.backends.postgresql",
    **{part: os.environ["PEER_" + part] for part in ("NAME", "USER", "PASSWORD", "HOST", "PORT")}}}
INSTALLED_APPS = ["django_celery_outbox"]
CELERY_OUTBOX_APP = "peer_celery.app"
SECRET_KEY, USE_TZ = "not-secret", True
"""
CELERY: Final = """
import os
from django_celery_outbox import OutboxCelery
app = OutboxCelery("shop", broker=os.environ["PEER_BROKER"])
app.conf.broker_transport_options = {"confirm_publish": True}
"""
SEND: Final = """
import json, sys, django
django.setup()
from django.db import transaction
from peer_celery import app
name, args, kwargs, queue = json.loads(sys.argv[1])
with transaction.atomic():
    app.send_task(name, args, kwargs, queue=queue)
"""
#: Copies of the one row that it wrote itself.
COPY: Final = """
DO $$ DECLARE columns text; BEGIN
    SELECT string_agg(quote_ident(column_name), ', ') INTO columns
    FROM information_schema.columns
    WHERE table_name = 'celery_outbox' AND column_name NOT IN ('id', 'task_id');
    EXECUTE format('INSERT INTO celery_outbox (task_id, %1$s)
        SELECT gen_random_uuid()::text, %1$s FROM celery_outbox, generate_series(2, {total})',
        columns);
END $$
"""


@dataclass(frozen=True, slots=True)
class Peer:
    """It, installed."""

    python: Path
    folder: Path
    environment: dict[str, str]

    def run(self, *arguments: str) -> None:
        """Run its Python until it ends."""
        ran = subprocess.run(
            [self.python, *arguments],
            cwd=self.folder,
            env=self.environment,
            capture_output=True,
            text=True,
            timeout=PATIENCE_SECONDS,
        )
        if ran.returncode:
            raise Unbelievable(f"{PACKAGE} failed: {ran.stderr[-500:]}")


def wanted() -> bool:
    """Whether somebody asked for peers."""
    return bool(os.environ.get("PEERS"))


def measure(lab: Lab, kind: Kind, total: int) -> Run:
    """Have it drain `total` tasks to a queue of this kind."""
    node = lab.require_rabbitmq()
    routes = queues.fresh(node.url(), kind)
    peer = _installed(lab, node.url())
    peer.run("-m", "django", "migrate", "--verbosity", "0")
    lab.admin.execute("TRUNCATE celery_outbox")
    peer.run("-c", SEND, _call(routes[0].queue))
    lab.admin.execute(COPY.replace("{total}", str(total)).encode())
    lab.admin.execute("VACUUM (ANALYZE) celery_outbox")
    log = lab.folder / "peer.log"
    pids = {"broker": node.process.pid, "postgres": lab.postgres.process.pid}
    relay = spawn(
        [str(peer.python), "-m", "django", "celery_outbox_relay", *FLAGS],
        folder=peer.folder,
        log=log,
        environment=peer.environment,
    )
    try:
        _await_first(node.url(), routes, log)
        before = {who: cpu.spent(pid) for who, pid in {**pids, "sender": relay.pid}.items()}
        already, began = queues.depth(node.url(), routes), perf_counter()
        silence = _await_empty(lab, log)
        seconds = perf_counter() - began
        spent = {
            who: cpu.spent(pid) - before[who] for who, pid in {**pids, "sender": relay.pid}.items()
        }
    finally:
        kill_family(relay)
    queues.await_depth(node.url(), routes, total)
    queues.delete(node.url(), routes)
    return Run(total - already, seconds, spent, silence)


def _installed(lab: Lab, broker: str) -> Peer:
    folder = lab.folder.parent / "peer"
    python = folder / "env" / "bin" / "python"
    if not python.exists():
        shutil.rmtree(folder, ignore_errors=True)
        folder.mkdir(parents=True)
        uv = str(Path(sys.executable).parents[2] / ".uv" / "bin" / "uv")
        install = [uv, "pip", "install", "-q", "--python", str(python), PACKAGE, "psycopg[binary]"]
        for command in (
            [uv, "venv", "-q", "--python", sys.executable, str(folder / "env")],
            install,
        ):
            ran = subprocess.run(command, capture_output=True, text=True, timeout=600)
            if ran.returncode:
                shutil.rmtree(folder)
                raise Unbelievable(f"{PACKAGE} could not be installed: {ran.stderr[-500:]}")
    (folder / "peer_settings.py").write_text(SETTINGS)
    (folder / "peer_celery.py").write_text(CELERY)
    parts = conninfo_to_dict(lab.database_url)
    names = {
        "NAME": "dbname",
        "USER": "user",
        "PASSWORD": "password",
        "HOST": "host",
        "PORT": "port",
    }
    database = {f"PEER_{name}": str(parts.get(part) or "") for name, part in names.items()}
    settings = {"DJANGO_SETTINGS_MODULE": "peer_settings", "PYTHONPATH": str(folder)}
    return Peer(python, folder, {**os.environ, **database, **settings, "PEER_BROKER": broker})


def _call(queue: str) -> str:
    return json.dumps([NAME, ARGUMENTS.positional, ARGUMENTS.named, queue])


def _await_first(url: str, routes: list[queues.Route], log: Path) -> None:
    deadline = monotonic() + PATIENCE_SECONDS
    while not queues.depth(url, routes):
        if monotonic() > deadline:
            raise Unbelievable(f"{PACKAGE} sends nothing: {tail(log)}")
        sleep(POLL_SECONDS)


def _await_empty(lab: Lab, log: Path) -> float:
    """Wait until its table is empty; the longest time in which it did not shrink."""
    last, since, silence = -1, perf_counter(), 0.0
    while left := lab.value("SELECT count(*) FROM celery_outbox"):
        if left != last:
            last, since = left, perf_counter()
        silence = max(silence, perf_counter() - since)
        if silence > PATIENCE_SECONDS:
            raise Unbelievable(f"{PACKAGE} left {left} messages: {tail(log)}")
        sleep(POLL_SECONDS)
    return silence

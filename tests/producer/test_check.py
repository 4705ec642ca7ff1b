"""`python -m celery_outbox check` tells what will become of each send."""

import json
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest

from celery_outbox.__main__ import main

TASKS = """
from celery import Celery, shared_task
from celery_singleton import Singleton
from django.tasks import task
from django.db import transaction
from contextlib import contextmanager

app = Celery("shop")

@app.task(bind=True)
def pay(self, order_id):
    if order_id:
        raise self.retry(countdown=3)
    return self.replace(ship.si(1))

@shared_task(name="ship it", base=Singleton)
def ship(order_id):
    "x".replace("a", "b")

@task
def mail(order_id): ...

@contextmanager
def traced():
    with transaction.atomic():
        yield
"""
HEAD = """
from functools import partial
from itertools import chain as flat
from multiprocessing import Pool
import threading

import redis
from celery import chain, chord, current_app, group, signature
from django.db import transaction

from shop import tasks
from shop.tasks import app, mail, pay, ship, traced

def view(order_id, ids, session, connection, thing):
"""


@pytest.fixture
def check(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> Any:
    """Run the command on the lines of a function, below HEAD, and return its first finding."""

    def run(*lines: str, head: str = HEAD) -> dict[str, Any] | None:
        (tmp_path / "shop").mkdir(exist_ok=True)
        (tmp_path / "shop" / "tasks.py").write_text(TASKS)
        body = "".join(f"    {line}\n" for line in lines)
        (tmp_path / "shop" / "views.py").write_text(head + body)
        main(["check", "--json", str(tmp_path)])
        sends = json.loads(capsys.readouterr().out)["sends"]
        return next((send for send in sends if send["path"].endswith("views.py")), None)

    return run


@pytest.mark.parametrize(
    ("line", "call", "task"),
    [
        ("pay.delay(1)", "delay", "shop.tasks.pay"),
        ("tasks.pay.apply_async(args=[1])", "apply_async", "shop.tasks.pay"),
        ("ship.delay(1)", "delay", "ship it"),
        ("app.send_task('other.task', [1])", "send_task", "other.task"),
        ("app.send_task(name='other.task')", "send_task", "other.task"),
        ("current_app.tasks['other.task'].delay()", "delay", "other.task"),
        ("pay.s(1).delay()", "delay", "shop.tasks.pay"),
        ("pay.s(1).set(queue='x').apply_async()", "apply_async", "shop.tasks.pay"),
        ("signature('other.task', args=(1,)).delay()", "delay", "other.task"),
        ("app.signature('other.task').delay()", "delay", "other.task"),
        ("chain(pay.s(1), ship.si(2))()", "chain()", None),
        ("chain(pay.s(1), ship.si(2)).delay()", "delay", None),
        ("(pay.s(1) | ship.s())()", "chain()", None),
        ("(pay.s(1) | ship.s() | ship.s()).apply_async()", "apply_async", None),
        ("group(pay.s(i) for i in ids)()", "group()", None),
        ("chord([pay.s(1)])(ship.s())", "chord()", None),
        ("chord([pay.s(1)], ship.s()).on_error(ship.s()).delay()", "delay", None),
        ("pay.chunks([(1,)], 10)()", "chunks()", "shop.tasks.pay"),
        ("pay.chunks([(1,)], 10).apply_async()", "apply_async", "shop.tasks.pay"),
        ("mail.enqueue(1)", "enqueue", "shop.tasks.mail"),
        ("mail.using(priority=3).enqueue(1)", "enqueue", "shop.tasks.mail"),
        ("pay.delay(\n        1,\n    ).get()", "delay", "shop.tasks.pay"),
    ],
)
def test_a_send_without_a_transaction(check: Any, line: str, call: str, task: str | None) -> None:
    """Each way to send is known for certain, with its task where the source names one."""
    found = check(line)

    assert (found["call"], found["task"]) == (call, task)
    assert (found["outcome"], found["certainty"]) == ("none-in-sight", "certain")
    assert found["line"] == HEAD.count("\n") + 1


def test_a_canvas_in_a_variable_is_known(check: Any) -> None:
    """Where it is sent counts, not where it is made."""
    found = check("steps = chain(*ids)", "steps()")

    assert (found["call"], found["line"]) == ("chain()", HEAD.count("\n") + 2)


@pytest.mark.parametrize(
    "line",
    [
        "'a'.replace('a', 'b')",
        "list(flat(ids, ids))",
        "connection.retry()",
        "pay(1)",
        "pay.s(1)",
        "pay.apply(args=[1])",
        "thing.delay = 3",
        "thing.enqueue(1)",
        "Pool().apply_async(print, [1])",
        "steps = chain(pay.s(1), ship.s())",
    ],
)
def test_what_sends_nothing_is_not_listed(check: Any, line: str) -> None:
    """Strings, pools, other people's queues, and canvas that is only made."""
    assert check(line) is None


@pytest.mark.parametrize(
    ("opening", "outcome", "certainty"),
    [
        ("with transaction.atomic():", "joins", "certain"),
        ("with transaction.atomic(using='other'):", "unknown", "unknown"),
        ("with transaction.atomic(using='default'):", "joins", "certain"),
        ("with traced():", "joins", "certain"),
        ("with thing.atomic():", "joins", "likely"),
        ("with app.outbox.using(connection):", "joins", "certain"),
        ("with app.outbox.transaction(session):", "joins", "certain"),
        ("with connection, app.outbox.using(connection):", "joins", "certain"),
        ("with session.begin():", "needs-using", "likely"),
        ("with connection.transaction():", "needs-using", "likely"),
        ("with thing.tm:", "needs-using", "likely"),
        ("with open('x'):", "none-in-sight", "certain"),
        ("def inner():", "unknown", "unknown"),
    ],
)
def test_the_block_around_a_send_decides(
    check: Any, opening: str, outcome: str, certainty: str
) -> None:
    """SQLAlchemy's and psycopg's own blocks want `using`; what runs later cannot be told."""
    found = check(opening, "    pay.delay(1)")

    assert (found["outcome"], found["certainty"]) == (outcome, certainty)


@pytest.mark.parametrize(
    "given",
    [
        "lambda: send_it(1)",
        "send_it",
        "partial(send_it, 1)",
        "lambda: pay_it.send_it(1)",
        "lambda: thing(1)); transaction.on_commit(self.send_it",
    ],
)
def test_a_function_that_on_commit_calls_is_known_as_that(check: Any, given: str) -> None:
    """Wherever it is defined; it may be called elsewhere, too."""
    before = HEAD.replace(
        "def view(",
        "from shop import views as pay_it\ndef send_it(x):\n    pay.delay(x)\n\ndef view(",
    )
    found = check(f"transaction.on_commit({given})", head=before)

    assert (found["outcome"], found["certainty"]) == ("on-commit", "likely")
    assert f"views.py:{before.count(chr(10)) + 1} calls" in found["reason"]


def test_a_callback_that_a_call_makes_is_likely_one(check: Any) -> None:
    """As for the value of a loop, of which a lambda would see the last."""
    found = check("transaction.on_commit((lambda one: lambda: pay.delay(one))(order_id))")

    assert (found["outcome"], found["certainty"]) == ("on-commit", "likely")


def test_packages_and_src_are_named_as_they_are_imported(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    """A task's name begins with its package, not with the folder that was given."""
    for folder, package in (("a/b", True), ("src/c", False)):
        (tmp_path / folder).mkdir(parents=True)
        (tmp_path / folder / "tasks.py").write_text(
            "from celery import shared_task\n@shared_task\ndef pay(): ...\npay.delay()\n"
        )
        if package:
            (tmp_path / folder / "__init__.py").touch()
    main(["check", "--json", str(tmp_path)])

    sends = json.loads(capsys.readouterr().out)["sends"]
    assert [send["task"] for send in sends] == ["b.tasks.pay", "c.tasks.pay"]


def test_a_decorated_function_is_a_transaction(check: Any) -> None:
    """As a block is."""
    head = HEAD.replace("def view(", "@transaction.atomic\ndef view(")

    assert check("pay.delay(1)", head=head)["outcome"] == "joins"


def test_a_function_inside_of_a_block_is_not_in_its_transaction(check: Any) -> None:
    """It may be called anywhere."""
    found = check("with transaction.atomic():", "    thing(lambda: pay.delay(1))")

    assert found["outcome"] == "unknown"


@pytest.mark.parametrize(
    ("line", "task", "certainty"),
    [
        ("thing.delay(1)", "thing", "likely"),
        ("thing.pool.apply_async(1)", "thing.pool", "unknown"),
        ("thing(pay.delay)", "shop.tasks.pay", "unknown"),
        ("super().delay(1)", "super(…)", "unknown"),
        ("thing.retry(countdown=3)", "thing", "likely"),
    ],
)
def test_what_is_not_certain_says_so(check: Any, line: str, task: str, certainty: str) -> None:
    """Nothing is guessed in silence."""
    found = check(line)

    assert (found["task"], found["certainty"]) == (task, certainty)


def test_a_signature_that_is_called_sends_nothing(check: Any) -> None:
    """Celery runs its task where it is called."""
    assert check("pay.s(1)()")["outcome"] == "runs-here"


def test_a_tasks_own_retry_and_replacement_are_stored_apart(
    check: Any, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    """And the methods of strings beside them are none."""
    check("pass")
    main(["check", "--json", str(tmp_path)])
    sends = json.loads(capsys.readouterr().out)["sends"]

    assert [(send["call"], send["task"], send["outcome"]) for send in sends] == [
        ("retry", "shop.tasks.pay", "stored-apart"),
        ("replace", "shop.tasks.pay", "stored-apart"),
    ]


@pytest.mark.parametrize(
    ("lines", "lock"),
    [
        (["ship.delay(1)"], "celery-singleton"),
        (["with redis.Redis().lock('x'):", "    pay.delay(1)"], "`lock` is held"),
        (["lock = thing.lock('x')", "lock.acquire()", "pay.delay(1)"], "`lock.acquire` is held"),
        (["lock = threading.Lock()", "lock.acquire()", "pay.delay(1)"], None),
        (["pay.delay(1)"], None),
    ],
)
def test_a_lock_that_is_taken_before_is_named(
    check: Any, lines: list[str], lock: str | None
) -> None:
    """A rollback does not give it back; one of this process harms nobody."""
    found = check(*lines)["lock"]

    assert found is None if lock is None else lock in found


def test_nothing_to_look_at_ends_with_0(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    """Without a send, and with one that certainly joins a transaction."""
    file = tmp_path / "shop.py"
    file.write_text("x = 1\n")
    assert main(["check", str(file)]) == 0
    assert capsys.readouterr().out == "No sends.\n"

    file.write_text(
        "from celery import shared_task\nfrom django.db import transaction\n"
        "@shared_task\ndef pay(): ...\n"
        "with transaction.atomic():\n    pay.delay()\n"
    )
    assert main(["check", str(file)]) == 0
    assert "1 send: 1 joins. To look at: 0." in capsys.readouterr().out


def test_long_sums_and_chains_of_elif_are_read(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    """Each term is one level deeper in the tree."""
    (tmp_path / "shop.py").write_text(
        "from celery import current_app\n"
        f"x = {' + '.join(['y'] * 900)}\n"
        + "if x: pass\n"
        + "elif x: pass\n" * 300
        + "else: current_app.send_task('a')\n"
    )
    main(["check", "--json", str(tmp_path)])

    answer = json.loads(capsys.readouterr().out)
    assert [send["task"] for send in answer["sends"]] == ["a"]
    assert answer["unread"] == []


def test_the_users_code_is_never_run(tmp_path: Path) -> None:
    """Not even by the command itself, in a process of its own; its lines fit 80 columns."""
    (tmp_path / "shop.py").write_text(
        "from celery import shared_task\nraise SystemExit(7)\n"
        "@shared_task\ndef pay(): ...\npay.delay()\n"
        f"@shared_task\ndef {'long_' * 12}(): ...\n{'long_' * 12}.delay()\n"
    )
    command = [sys.executable, "-m", "celery_outbox", "check", "."]
    ran = subprocess.run(command, cwd=tmp_path, capture_output=True, text=True, timeout=60)

    assert (ran.returncode, ran.stderr) == (1, "")
    assert "     5  none-in-sight  delay shop.pay\n" in ran.stdout
    assert f"     8  none-in-sight  delay\n        shop.{'long_' * 12}\n" in ran.stdout
    assert max(map(len, ran.stdout.splitlines())) <= 80


def test_a_path_that_is_not_there_is_wrong_usage(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    """As is no path at all."""
    with pytest.raises(SystemExit, match="2"):
        main(["check", str(tmp_path / "nowhere")])
    assert "there is no" in capsys.readouterr().err
    with pytest.raises(SystemExit, match="2"):
        main(["check"])


def test_atomic_requests_is_pointed_out(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    """Views do not show that their requests are transactions."""
    (tmp_path / "settings.py").write_text("DATABASES = {'default': {'ATOMIC_REQUESTS': True}}\n")
    (tmp_path / "shop.py").write_text(
        "from celery import current_app\ncurrent_app.send_task('a')\n"
    )
    main(["check", str(tmp_path)])

    assert f"ATOMIC_REQUESTS is named at {tmp_path}/settings.py:1" in " ".join(
        capsys.readouterr().out.split()
    )


def test_what_cannot_be_parsed_is_named(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    """The others are read all the same; hidden folders and virtual environments are not."""
    (tmp_path / "broken.py").write_text("def (\n")
    (tmp_path / "other.py").write_bytes(b"# coding: latin-1\nx = '\xe9'\n")
    (tmp_path / "null.py").write_bytes(b"x = '\x00'\n")
    (tmp_path / "coding.py").write_bytes(b"x = '\xe9'\n")
    for folder in (".git", "env", "node_modules"):
        (tmp_path / folder).mkdir()
        (tmp_path / folder / "broken.py").write_text("def (\n")
    (tmp_path / "env" / "pyvenv.cfg").touch()

    assert main(["check", "--json", str(tmp_path)]) == 1
    unread = json.loads(capsys.readouterr().out)["unread"]
    assert [Path(file["path"]).name for file in unread] == ["broken.py", "coding.py", "null.py"]
    assert "in line 1" in unread[0]["reason"]

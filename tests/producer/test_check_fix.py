"""`check --fix` changes what is mechanical, byte by byte, and nothing else."""

from pathlib import Path

import pytest

from celery_outbox.__main__ import main
from celery_outbox.check import command, edits

HEAD = """\
from functools import partial
from celery import shared_task
from celery_once import QueueOnce
from celery_outbox import install
from django.conf import settings
from django.db import transaction
from django.db.transaction import on_commit
LIMIT = 3
@shared_task
def pay(*args): ...
@shared_task(base=QueueOnce)
def lone(*args): ...
def view(order_id, order, ids, when: str):
"""


@pytest.mark.parametrize(
    ("before", "after"),
    [
        ("transaction.on_commit(lambda: pay.delay(order_id))", "pay.delay(order_id)"),
        ("on_commit(lambda: pay.delay(when, LIMIT, 'é'))", "pay.delay(when, LIMIT, 'é')"),
        ("on_commit(func=lambda: pay.delay(f'{order_id}'))", "pay.delay(f'{order_id}')"),
        ("on_commit(lambda: pay.delay(settings.KEY))", "pay.delay(settings.KEY)"),
        ("on_commit(pay.delay)", "pay.delay()"),
        ("on_commit(partial(pay.delay, order_id, a=1,))", "pay.delay(order_id, a=1,)"),
        ("on_commit(partial(pay.delay))", "pay.delay()"),
        (
            "on_commit(\n        lambda: pay.apply_async(\n"
            "            args=[order_id],\n        )\n    )",
            "pay.apply_async(\n        args=[order_id],\n    )",
        ),
        ("pay.delay_on_commit(order_id)", "pay.delay(order_id)"),
        (
            "pay.apply_async_on_commit((order_id,), countdown=3)",
            "pay.apply_async((order_id,), countdown=3)",
        ),
        (
            "é = on_commit; on_commit(lambda: pay.delay('ü')); 'ö'",
            "é = on_commit; pay.delay('ü'); 'ö'",
        ),
        (
            "new = Order.objects.create()\n"
            "    on_commit(lambda: pay.delay(new.pk))\n    return new",
            "new = Order.objects.create()\n    pay.delay(new.pk)\n    return new",
        ),
        (
            "order.save()\n    on_commit(lambda: pay.delay(str(order.id)))",
            "order.save()\n    pay.delay(str(order.id))",
        ),
        (
            "for one_id in ids:\n        on_commit(partial(pay.delay, one_id))",
            "for one_id in ids:\n        pay.delay(one_id)",
        ),
    ],
)
@pytest.mark.parametrize("newline", ["\n", "\r\n"])
def test_the_wrapper_goes(tmp_path: Path, before: str, after: str, newline: str) -> None:
    """Where the arguments are the same at both times; every other byte stays."""
    file = tmp_path / "shop.py"
    text = HEAD + "    {}\n\f\n    # ünd   so\n"
    file.write_bytes(text.format(before).replace("\n", newline).encode())
    file.chmod(0o640)

    assert main(["check", "--fix", str(file)]) == 1
    assert file.read_bytes().decode() == text.format(after).replace("\n", newline)
    assert file.stat().st_mode & 0o777 == 0o640
    assert list(tmp_path.iterdir()) == [file]


@pytest.mark.parametrize(
    ("line", "reason"),
    [
        ("on_commit(lambda: pay.delay(order.pk))", "`order.pk` may not be set"),
        ("on_commit(lambda: pay.delay(order.total))", "`order.total` may be changed"),
        ("on_commit(lambda: pay.delay(ids))", "`ids` may be changed"),
        ("on_commit(partial(pay.delay, ids))", "`ids` may be changed"),
        ("on_commit(lambda: pay.delay(*ids))", "what is unpacked"),
        ("on_commit(lambda: pay.delay(when.upper()))", "`when.upper()` may be another"),
        ("on_commit(lambda: pay.delay(order_id)); order_id = 3", "`order_id` is bound anew"),
        ("for x_id in ids: on_commit(lambda: pay.delay(x_id))", "the last `x_id`"),
        ("x = on_commit(lambda: pay.delay(order_id))", "what it returns is used"),
        ("on_commit(lambda: pay.delay(1), using='x')", "it names a database"),
        ("on_commit(lambda: pay.delay(1), robust=True)", "outlives an error"),
        ("on_commit(  # first\n        lambda: pay.delay(1))", "has a comment inside"),
        ("on_commit(\n        lambda: pay\n        .delay(1))", "would not fit"),
        ("on_commit(lambda: pay.delay(partial))", "`partial` may be changed"),
        ("on_commit(lambda: pay.delay(unknown))", "`unknown` is of a function around"),
        (
            "for one in ids:\n        def inner():\n            on_commit(lambda: pay.delay(one))",
            "`one` is of a function around",
        ),
        ("on_commit(lambda: lone.delay(1))", "a rollback does not give the lock back"),
        ("lone.delay_on_commit(1)", "a rollback does not give the lock back"),
        (
            "with transaction.atomic(using='b'):\n        on_commit(lambda: pay.delay(1))",
            "may be of another database",
        ),
        ("pay.delay_on_commit(ids)", "`ids` may be changed"),
        (
            "order = Order.objects.create()\n"
            "    on_commit(lambda: pay.delay(order.pk)); order.clean()",
            "`order` is used again",
        ),
    ],
)
def test_what_may_differ_is_left_to_a_person(
    tmp_path: Path, capsys: pytest.CaptureFixture[str], line: str, reason: str
) -> None:
    """With the reason; the file is not written."""
    file = tmp_path / "shop.py"
    file.write_text(f"{HEAD}    {line}\n")

    assert main(["check", "--fix", str(file)]) == 1
    assert file.read_text() == f"{HEAD}    {line}\n"
    out = " ".join(capsys.readouterr().out.split())
    assert "by hand" in out
    assert reason in out


def test_without_fix_the_diff_is_only_shown(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    """And the file stays as it is."""
    file = tmp_path / "shop.py"
    file.write_text(f"{HEAD}    on_commit(lambda: pay.delay(1))\n")

    main(["check", str(file)])

    assert "lambda" in file.read_text()
    out = capsys.readouterr().out
    assert out.startswith("What --fix would change:\n---")
    assert "-    on_commit(lambda: pay.delay(1))\n+    pay.delay(1)\n" in out


def test_an_app_without_an_outbox_is_warned_of(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    """There the wrapper is what keeps the send behind the commit."""
    file = tmp_path / "shop.py"
    text = HEAD.replace("from celery_outbox import install\n", "")
    file.write_text(f"{text}    on_commit(lambda: pay.delay(1))\n")

    main(["check", str(file)])

    assert "goes out before it" in capsys.readouterr().err


def test_an_on_commit_of_unknown_origin_is_not_changed(tmp_path: Path) -> None:
    """It need not be Django's."""
    file = tmp_path / "shop.py"
    text = f"{HEAD}    order.on_commit(lambda: pay.delay(1))\n"
    file.write_text(text)

    main(["check", "--fix", str(file)])

    assert file.read_text() == text


def test_a_file_that_changed_meanwhile_is_named_and_left_alone(tmp_path: Path) -> None:
    """Between reading and writing somebody saved it."""
    file = tmp_path / "shop.py"
    file.write_text(f"{HEAD}    on_commit(lambda: pay.delay(1))\n")
    seen = command.look(tmp_path)
    file.write_text("x = 1\n")

    left = edits.write(seen.sources[0], seen.changes()[str(file)])

    assert left is not None
    assert "changed since it was read" in left.reason
    assert file.read_text() == "x = 1\n"


def test_encoding_and_mark_survive(tmp_path: Path) -> None:
    """A byte order mark, and another encoding than UTF-8."""
    body = f"{HEAD}    on_commit(lambda: pay.delay('é'))\n"
    for start, encoding in (("\ufeff", "utf-8"), ("# coding: latin-1\n", "latin-1")):
        file = tmp_path / "shop.py"
        file.write_bytes((start + body).encode(encoding))
        main(["check", "--fix", str(file)])
        wanted = start + body.replace("on_commit(lambda: pay.delay('é'))", "pay.delay('é')")
        assert file.read_bytes() == wanted.encode(encoding)

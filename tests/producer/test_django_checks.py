"""Django's system checks tell what is lost although there is an outbox."""

import os
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path
from textwrap import dedent
from types import SimpleNamespace
from typing import Any

import pytest
from celery import Celery, _state
from django.core import checks  # type: ignore[import-untyped]  # Django ships no types
from django.test import override_settings  # type: ignore[import-untyped]  # the same
from django.test.utils import (  # type: ignore[import-untyped]  # the same
    setup_test_environment,
    teardown_test_environment,
)

from celery_outbox import OutboxCelery
from celery_outbox.django.checking import check_beat, check_sends

pytestmark = pytest.mark.usefixtures("django_database")

TASKS = """
    from celery import shared_task

    @shared_task
    def bill(order_id): ...
"""
VIEWS = """
    from django.db import transaction
    from shop.tasks import bill

    def place(order):
        transaction.on_commit(lambda: bill.delay(order.pk))

    def join(order):
        with transaction.atomic():
            bill.delay(order.pk)
"""


@pytest.fixture
def current(request: pytest.FixtureRequest) -> Iterator[Any]:
    """The project's app, or another class of app that the test asks for."""
    state: Any = _state
    before, default = state._tls.current_app, state.default_app
    app = getattr(request, "param", OutboxCelery)("shop")
    app.set_default()
    yield app
    app.close()
    state._tls.current_app, state.default_app = before, default


@pytest.fixture
def project(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Any:
    """Write files of an app and check it: ``project(tasks=..., views=...)``."""
    monkeypatch.chdir(tmp_path)

    def check(folder: str = "shop", **files: str) -> list[Any]:
        root = tmp_path / folder
        root.mkdir(parents=True, exist_ok=True)
        (root / "__init__.py").touch()
        for name, text in files.items():
            path = root / f"{name}.py"
            path.parent.mkdir(exist_ok=True)
            path.write_text(dedent(text))
        found = check_sends([SimpleNamespace(name=root.name, path=str(root))])
        return [(each.id, str(each.obj), each.msg) for each in found]

    return check


def test_it_is_one_of_the_projects_checks(current: Any) -> None:
    """Of a project with nothing to be said it says nothing."""
    with override_settings(INSTALLED_APPS=["celery_outbox.django"]):
        assert checks.run_checks(tags=["celery_outbox"]) == []


@pytest.mark.parametrize(("apps", "known"), [(["celery_outbox.django"], True), ([], False)])
def test_the_installed_app_registers_it(apps: list[str], known: bool) -> None:
    """In a process that has not imported it otherwise, as this one has."""
    program = f"""
        import django
        from django.conf import settings
        from django.core.checks.registry import registry

        settings.configure(INSTALLED_APPS={apps})
        django.setup()
        print("celery_outbox" in registry.tags_available())
    """
    command = [sys.executable, "-c", dedent(program)]
    ran = subprocess.run(command, capture_output=True, text=True, timeout=60, check=True)

    assert ran.stdout.strip() == str(known)


@pytest.mark.parametrize("current", [Celery], indirect=True)
def test_an_app_without_an_outbox(current: Any, project: Any) -> None:
    """What it sends goes directly: on_commit is right there, and not warned of."""
    ((code, _, said),) = project(tasks=TASKS, views=VIEWS)

    assert code == "celery_outbox.W005"
    assert "not an OutboxCelery" in said


@pytest.mark.parametrize("current", [Celery], indirect=True)
def test_of_tasks_with_such_an_app_an_error_tells(current: Any, project: Any) -> None:
    """TASKS has a check of its own."""
    backend = {"BACKEND": "celery_outbox.django.tasks.OutboxBackend"}
    with override_settings(TASKS={"default": backend}):
        assert project(tasks=TASKS) == []


def test_what_waits_for_the_commit(current: Any, project: Any) -> None:
    """Is named with file and line; what joins its transaction is not."""
    ((code, _, said),) = project(tasks=TASKS, views=VIEWS)

    assert code == "celery_outbox.W004"
    assert said.endswith(f": {Path('shop', 'views.py')}:6.")


def test_many_are_counted(current: Any, project: Any) -> None:
    """Five are named: a project that begins has hundreds."""
    line = "    transaction.on_commit(lambda: bill.delay(1))\n"
    head = "from django.db import transaction\nfrom shop.tasks import bill\ndef place():\n"
    ((_, _, said),) = project(tasks=TASKS, views=head + line * 7)

    assert said.count("views.py:") == 5
    assert said.endswith(" and 2 more.")


@pytest.mark.parametrize(
    ("package", "base", "library"),
    [
        ("celery_singleton", "Singleton", "celery-singleton"),
        ("celery_once", "QueueOnce", "celery-once"),
    ],
)
def test_tasks_that_are_locked(
    current: Any, project: Any, package: str, base: str, library: str
) -> None:
    """Each is named; of an own base class its tasks in other modules are as well."""
    own = f"from {package} import {base}\n\nclass Once({base}):\n    abstract = True\n"
    tasks = """
        from celery import shared_task
        from shop.base import Once

        @shared_task(base=Once, name="rebuild")
        def rebuild(shelf): ...

        @shared_task
        def bill(order_id): ...
    """
    found = project(base=own, tasks=tasks)

    assert [code for code, _, _ in found] == ["celery_outbox.W003"] * 2
    assert [where for _, where, _ in found] == [
        f"{Path('shop', 'base.py')}:3",
        f"{Path('shop', 'tasks.py')}:6",
    ]
    assert found[1][2].startswith(f"rebuild is locked by {library} ")


def test_nothing_is_imported_or_run(current: Any, project: Any) -> None:
    """Sources are read, those alone in which there is something."""
    raising = f"{dedent(VIEWS)}\nraise SystemExit(7)\n"
    before = set(sys.modules)
    assert len(project(tasks=TASKS, views=raising)) == 1
    assert not [name for name in set(sys.modules) - before if name.startswith("shop")]


@pytest.mark.parametrize("folder", ["lib/site-packages/shop", "shop"])
def test_other_peoples_code_and_tests_are_left_out(current: Any, project: Any, folder: str) -> None:
    """What nobody here can change, and what no user waits for."""
    files = {"views": VIEWS} if "/" in folder else {"test_views": VIEWS, "tests/views": VIEWS}
    assert project(folder, tasks=TASKS, **files) == []


def test_what_cannot_be_read_is_left_out(current: Any, project: Any, tmp_path: Path) -> None:
    """A link that leads nowhere, and a file that is no Python, keep no project from starting."""
    assert project(views="on_commit = (\n") == []
    os.symlink(tmp_path / "nowhere", tmp_path / "shop" / "gone.py")  # noqa: PTH211 - plainer
    assert project(tasks=TASKS) == []


def test_a_file_that_is_a_link(current: Any, project: Any, tmp_path: Path) -> None:
    """It is read as the module that it is here, wherever it leads to."""
    (tmp_path / "elsewhere.txt").write_text(dedent(TASKS))
    (tmp_path / "shop").mkdir()
    os.symlink(tmp_path / "elsewhere.txt", tmp_path / "shop" / "tasks.py")  # noqa: PTH211 - the same
    ((code, _, said),) = project(views=VIEWS)

    assert code == "celery_outbox.W004"
    assert "views.py:6" in said


@pytest.mark.parametrize("current", [OutboxCelery, Celery], indirect=True)
def test_a_test_run_is_left_alone(current: Any, project: Any) -> None:
    """There neither the app nor the sources are those that send."""
    setup_test_environment()
    try:
        assert project(tasks=TASKS, views=VIEWS) == []
    finally:
        teardown_test_environment()
    assert len(project(tasks=TASKS, views=VIEWS)) == 1


def test_manage_py_test(tmp_path: Path) -> None:
    """On SQLite and with a plain app: it says nothing of ours, and `manage.py check` does."""
    (tmp_path / "lite.py").write_text(
        dedent("""
            from django.conf import settings

            INSTALLED_APPS = ["celery_outbox.django"]
            DATABASES = {"default": {"ENGINE": "django.db.backends.sqlite3", "NAME": ":memory:"}}
            SECRET_KEY = "s"
        """)
    )
    (tmp_path / "test_it.py").write_text(
        dedent("""
            from django.test import TestCase

            class It(TestCase):
                def test_it(self): ...
        """)
    )

    def ran(command: str) -> str:
        arguments = [sys.executable, "-W", "ignore", "-m", "django", command]
        paths = {"PYTHONPATH": str(tmp_path), "DJANGO_SETTINGS_MODULE": "lite"}
        done = subprocess.run(
            arguments,
            cwd=tmp_path,
            env={**os.environ, **paths},
            capture_output=True,
            text=True,
            timeout=60,
            check=True,
        )
        return done.stdout + done.stderr

    assert "celery_outbox.W005" in ran("check")
    said = ran("test")
    assert "Ran 1 test" in said
    assert "celery_outbox." not in said


@pytest.mark.parametrize(
    ("found", "told"), [("2.5.0", True), ("2.6.0", False), ("2.10.1", False), ("3.0b1", False)]
)
def test_a_beat_that_forgets_runs(
    found: str, monkeypatch: pytest.MonkeyPatch, *, told: bool
) -> None:
    """django-celery-beat before 2.6 is warned of, where it is among the installed apps."""
    monkeypatch.setattr("celery_outbox.django.checking.version", {"django-celery-beat": found}.get)
    assert check_beat() == []
    monkeypatch.setattr("django.apps.apps.is_installed", lambda name: name == "django_celery_beat")
    said = [each.id for each in check_beat()]

    assert said == (["celery_outbox.W006"] if told else [])

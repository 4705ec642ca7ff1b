"""Django's system checks of what a project sends: what `python -m celery_outbox check` sees of it.

Sources of the project's own apps are read, nothing of them is imported or run: those alone in which
there is something to be seen, so that a start takes no longer.
"""

import os
import re
from collections.abc import Iterable, Iterator, Sequence
from importlib.metadata import version
from pathlib import Path
from typing import Any, Final

from celery import current_app
from django.apps import apps  # type: ignore[import-untyped]  # Django ships no types
from django.conf import settings  # type: ignore[import-untyped]  # the same
from django.core import checks  # type: ignore[import-untyped]  # the same

from celery_outbox.app import OutboxCelery
from celery_outbox.check.command import look_at
from celery_outbox.check.finding import Finding, Outcome
from celery_outbox.check.index import Locked
from celery_outbox.check.source import find, read
from celery_outbox.django.test_runs import left_alone

#: What stands in files that have callbacks, tasks, or base classes of tasks; few have.
TELLING: Final = re.compile(rb"on_commit|celery|\bbase\s*=")
#: Folders of packages that are installed: other people's code.
INSTALLED: Final = frozenset({"site-packages", "dist-packages"})
OURS: Final = frozenset({"celery_outbox", "outbox_migrations"})
BACKEND: Final = "celery_outbox.django.tasks.OutboxBackend"
#: Before it, writing runs down read the schedule anew, and wrote down what that said.
OLDEST_BEAT: Final = [2, 6]
#: Places that are named before the rest is counted.
SHOWN: Final = 5


@checks.register("celery_outbox")  # type: ignore[untyped-decorator]  # Django ships no types
@left_alone
def check_sends(app_configs: Any = None, **_: Any) -> list[checks.CheckMessage]:
    """Return what a project's sends lose, although there is an outbox."""
    app: Any = current_app._get_current_object()  # type: ignore[attr-defined]  # of a Proxy
    if not isinstance(app, OutboxCelery):
        return [] if _checked_with_tasks() else [_without_outbox()]
    seen = look_at(read(path, root) for path, root in _telling(_own(app_configs)))
    waiting = [finding for finding in seen.found if finding.outcome is Outcome.ON_COMMIT]
    return [*map(_locked, seen.locked), *([_after_commit(waiting)] if waiting else [])]


@checks.register("celery_outbox")  # type: ignore[untyped-decorator]  # the same
@left_alone
def check_beat(**_: Any) -> list[checks.CheckMessage]:
    """Return whether beat's scheduler may forget what it has sent."""
    if not apps.is_installed("django_celery_beat"):
        return []
    found = version("django-celery-beat")
    if [*map(int, re.findall(r"\d+", found)[:2])] >= OLDEST_BEAT:
        return []
    return [
        checks.Warning(
            f"django-celery-beat {found} forgets runs when its schedule changes before they are"
            " written down: entries are sent twice, above all after an outage, when many are due.",
            hint="Upgrade to django-celery-beat 2.6 or newer.",
            id="celery_outbox.W006",
        )
    ]


def _checked_with_tasks() -> bool:
    """Whether the checks of TASKS tell of an app without an outbox, as an error."""
    backends = getattr(settings, "TASKS", {}).values()
    return any(backend.get("BACKEND") == BACKEND for backend in backends)


def _own(configs: Iterable[Any] | None) -> list[Path]:
    """Return the folders of the project's own apps, none within another."""
    folders = {
        Path(config.path)
        for config in (apps.get_app_configs() if configs is None else configs)
        if config.name.partition(".")[0] not in OURS
    }
    folders = {folder for folder in folders if not INSTALLED & {*folder.parts}}
    return sorted(folder for folder in folders if not folders & {*folder.parents})


def _telling(roots: Sequence[Path]) -> Iterator[tuple[Path, Path]]:
    """Yield the files in which there is something to be seen, each with the root it is below."""
    for root in roots:
        for path in find(root):
            if not _is_test(path, root) and TELLING.search(_content(path)):
                yield path, root


def _is_test(path: Path, root: Path) -> bool:
    parts = path.relative_to(root).parts
    return "tests" in parts or parts[-1].startswith("test")


def _content(path: Path) -> bytes:
    try:
        return path.read_bytes()
    except OSError:  # gone since, or not for us: what cannot be read, is not imported either
        return b""


def _without_outbox() -> checks.CheckMessage:
    return checks.Warning(
        "The current Celery app is not an OutboxCelery: what this process sends goes directly to"
        " the broker, and knows of no transaction.",
        hint="Make the project's app an OutboxCelery, and import it in the __init__.py of the"
        " project's package, as Celery's First steps with Django say.",
        id="celery_outbox.W005",
    )


def _locked(locked: Locked) -> checks.CheckMessage:
    return checks.Warning(
        f"{locked.task} is locked by {locked.library} before it is sent: after a rollback it stays"
        " locked, and what is sent next is lost.",
        hint="Send it with dedup_key=, which does the same in the transaction, and take the base"
        " class away.",
        obj=f"{_shown(locked.path)}:{locked.line}",
        id="celery_outbox.W003",
    )


def _after_commit(waiting: Sequence[Finding]) -> checks.CheckMessage:
    places = [f"{_shown(finding.path)}:{finding.line}" for finding in waiting]
    named = ", ".join(places[:SHOWN])
    more = f" and {len(places) - SHOWN} more" if len(places) > SHOWN else ""
    return checks.Warning(
        "What is sent in a callback of on_commit is lost when the process ends between the commit"
        f" and the callback: {named}{more}.",
        hint="Send it in the transaction, as `python -m celery_outbox check PATH` tells; --fix"
        " changes what is mechanical.",
        id="celery_outbox.W004",
    )


def _shown(path: str) -> str:
    """Return a path as seen from the current folder, if it is below."""
    below = os.path.relpath(path)
    return path if below.startswith(os.pardir) else below

"""What importing celery_outbox replaces in Celery is said on its first page, all of it."""

import json
import subprocess
import sys
from pathlib import Path

README = (Path(__file__).resolve().parents[2] / "producer" / "README.md").read_text()

#: Prints what has changed: attributes of classes and modules, and signals with another receiver.
PROGRAM = """
import importlib, json, pkgutil, sys
import celery, kombu
from celery import signals
from celery.utils.dispatch import Signal

for package in (celery, kombu):
    for module in pkgutil.walk_packages(package.__path__, package.__name__ + "."):
        if ".contrib." in module.name or module.name.endswith("__main__"):
            continue
        try:
            importlib.import_module(module.name)
        except Exception:  # for want of an optional library
            pass

def attributes():
    found = {}
    for name, module in [*sys.modules.items()]:
        if name.split(".")[0] in ("celery", "kombu"):
            for key, value in [*vars(module).items()]:
                found[name, key] = value
                if isinstance(value, type) and value.__module__ == name:
                    owner = f"{name}.{value.__qualname__}"  # it may have two names there
                    found.update({(owner, k): v for k, v in [*vars(value).items()]})
    return found

def receivers():
    return {k: len(v.receivers) for k, v in vars(signals).items() if isinstance(v, Signal)}

before, heard = attributes(), receivers()
import celery_outbox
after = attributes()
changed = {f"{owner}.{key}" for (owner, key), value in before.items()
           if after.get((owner, key)) is not value}
louder = {name for name, count in receivers().items() if count != heard[name]}
print(json.dumps([sorted(changed), sorted(louder)]))
"""


def test_nothing_but_what_the_page_says() -> None:
    """Every attribute of every module and class of Celery and kombu, before and after."""
    done = subprocess.run(
        [sys.executable, "-W", "ignore", "-c", PROGRAM],
        capture_output=True,
        text=True,
        timeout=60,
        check=True,
    )
    changed, signals = json.loads(done.stdout.splitlines()[-1])

    kinds = ("Signature", "_chain", "_chord", "group")
    assert changed == sorted(
        [
            "celery.app.task.Task.add_to_chord",
            "celery.app.task.Task.apply",
            "celery.app.task.Task.retry",
            "celery.beat.Scheduler.apply_async",
            "celery.beat.Scheduler.producer",
            "celery.beat.Scheduler.tick",
            "celery.canvas._chain.__call__",
            "celery.canvas.chunks.group",
            *(f"celery.canvas.{kind}.apply_async" for kind in kinds),
        ]
    )
    assert signals == ["beat_init", "worker_init"]
    named = (
        "`celery.Task.retry`",
        "`celery.Task.apply`",
        "`celery.Task.add_to_chord`",
        "`celery.chord.apply_async`",
        "`celery.chunks.group`",
        "`beat_init`",
    )
    more = (
        "`celery.beat.Scheduler.producer`",
        "`celery.beat.Scheduler.apply_async` and `tick`",
        "`Signature`, `chain`, `group` and `chord`",
    )
    for name in (*named, *more):
        assert name in README

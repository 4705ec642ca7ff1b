"""What the figures depend on: the machine, the versions, the settings, the time of a flush."""

import os
import platform
from collections.abc import Iterator
from importlib.metadata import version
from pathlib import Path
from statistics import median
from time import perf_counter
from typing import Final

from bench.lab import POSTGRES_SETTINGS, Lab

LIBRARIES: Final = ("celery", "kombu", "amqp", "psycopg", "orjson", "redis")
FLUSHES: Final = 100
PAGE: Final = b"\0" * 8192


def conditions(lab: Lab) -> dict[str, str]:
    """Names and values, for the report."""
    return dict(_conditions(lab))


def _conditions(lab: Lab) -> Iterator[tuple[str, str]]:
    yield "machine", f"{len(os.sched_getaffinity(0))} cores of {_processor()}, all on one machine"
    yield "kernel", f"{platform.system()} {platform.release()}"
    yield "Python", f"{platform.python_implementation()} {platform.python_version()}"
    yield "libraries", ", ".join(f"{name} {version(name)}" for name in LIBRARIES)
    shown = {name: lab.value(f"SHOW {name}") for name in ("server_version", "fsync")}
    settings = ", ".join(f"{name} {value}" for name, value in POSTGRES_SETTINGS.items())
    yield "Postgres", f"{shown['server_version']}, fsync {shown['fsync']}, {settings}"
    yield "flush", f"{1000 * _flush_seconds(lab.folder):.2f} ms for 8 KiB (fdatasync, median)"
    if lab.rabbitmq:
        yield "RabbitMQ", _text(lab.rabbitmq.evaluate("rabbit_misc:version()"))
        yield "Erlang", _text(lab.rabbitmq.evaluate("rabbit_misc:otp_release()"))
    if lab.valkey:
        yield "Valkey", ", ".join(f"{k} {v}" for k, v in lab.valkey.settings.items() if k != "save")
    yield "scale", f"{lab.scale.name}, {lab.scale.repeats} rounds"


def _processor() -> str:
    try:
        lines = Path("/proc/cpuinfo").read_text().splitlines()
    except OSError:
        return platform.machine()
    names = (line.partition(":")[2].strip() for line in lines if line.startswith("model name"))
    return next(names, platform.machine())


def _flush_seconds(folder: Path) -> float:
    """How long one write takes to be on the disk that Postgres writes to."""
    file = os.open(folder / "flush", os.O_CREAT | os.O_WRONLY)
    try:
        os.write(file, PAGE)
        os.fsync(file)
        return median(_one_flush(file) for _ in range(FLUSHES))
    finally:
        os.close(file)


def _one_flush(file: int) -> float:
    began = perf_counter()
    os.pwrite(file, PAGE, 0)
    os.fdatasync(file)
    return perf_counter() - began


def _text(answer: str) -> str:
    return answer.strip().strip('"')

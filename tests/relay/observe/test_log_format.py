"""How events are written: for people where they read, else for programs."""

import json
import os
import pty
import subprocess
import sys

import pytest

PROGRAM = """
import sys
import structlog
from outbox_relay.observe import logs
logs.configure(sys.argv[1], "info")
structlog.get_logger().info("relay_started", schema="outbox")
"""


def written(style: str, stderr: int) -> None:
    """Have an event written to `stderr` by a process of its own."""
    command = [sys.executable, "-c", PROGRAM, style]
    subprocess.run(command, stderr=stderr, check=True, timeout=60)


def read_back(style: str, reading: int, writing: int) -> str:
    """What comes out of one end as it is written to the other."""
    try:
        written(style, writing)
        return os.read(reading, 10_000).decode()
    finally:
        os.close(writing)
        os.close(reading)


def to_a_terminal(style: str) -> str:
    """What is read there."""
    return read_back(style, *pty.openpty())


def to_a_pipe(style: str) -> str:
    """What is read there."""
    return read_back(style, *os.pipe())


@pytest.mark.parametrize("style", ["auto", "console"])
def test_on_a_terminal_it_is_text(style: str) -> None:
    """In colour, and no JSON."""
    text = to_a_terminal(style)

    assert "relay_started" in text
    assert "\x1b[" in text
    assert not text.startswith("{")


@pytest.mark.parametrize("style", ["auto", "json"])
def test_anywhere_else_it_is_json(style: str) -> None:
    """An object a line."""
    event = json.loads(to_a_pipe(style))

    assert (event["event"], event["schema"], event["level"]) == ("relay_started", "outbox", "info")


def test_either_can_be_asked_for() -> None:
    """Whatever reads it."""
    assert json.loads(to_a_terminal("json"))["event"] == "relay_started"
    assert "\x1b[" not in to_a_pipe("console")

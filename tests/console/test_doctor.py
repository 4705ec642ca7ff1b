"""The page Doctor: the command's report, whole; its failures as sentences; one run at a time."""

import asyncio
import json
import re
import shlex
import sys
import textwrap
from collections.abc import Callable
from contextlib import suppress
from pathlib import Path
from threading import Thread

import httpx
import pytest
from starlette.applications import Starlette

from outbox_console import create_app, settings
from outbox_console.doctor import Doctor, environment
from outbox_console.errors import SettingsError
from tests.console.conftest import Browser, served
from tests.fixtures.waiting import wait_until

Visit = Callable[..., Browser]

REPORT = [
    {"name": "database", "level": "ok", "text": "shop", "remedy": ""},
    {"name": "consumers", "level": "problem", "text": "queue <'mail'>", "remedy": "start a worker"},
    {"name": "activity", "level": "warn", "text": "an old transaction", "remedy": "end it"},
]


def command(tmp_path: Path, text: str) -> str:
    """A command that does what a few lines of Python say."""
    program = tmp_path / "program.py"
    program.write_text(text)
    return shlex.join([sys.executable, str(program)])


def examined(visit: Visit, url: str, line: str, role: str = "viewer") -> str:
    """The page after its button was pressed."""
    browser = visit(create_app(database_url=url, role=role, doctor=line))
    page = browser.get("/doctor")
    assert "Not examined yet" in page.text
    return browser.submit(page, "/doctor", "").text


def test_a_report_is_shown_the_worst_first(visit: Visit, outbox: str, tmp_path: Path) -> None:
    """Each finding with its level, its text and what to do; exit code 1 is no failure."""
    line = command(tmp_path, f"print({json.dumps(json.dumps(REPORT))}); raise SystemExit(1)")

    page = examined(visit, outbox, line)

    assert re.findall(r'class="finding finding-(\w+)"', page) == ["problem", "warn", "ok"]
    assert "queue &lt;&#39;mail&#39;&gt;" in page
    assert "start a worker" in page
    assert "1 problem<" in page


@pytest.mark.parametrize(
    ("text", "said"),
    [
        ("import sys; print('what is wrong', file=sys.stderr); sys.exit(2)", "what is wrong"),
        ("print('fine')", "printed no report"),
        ("print('[1]')", "printed no report"),
        ("print('{}')", "printed no report"),
        ("print('[]')", "printed no report"),
        ("print('null')", "printed no report"),
        ("print('[[]]')", "printed no report"),
        ("print('[' * 100_000)", "printed no report"),
        ("import sys; sys.stdout.buffer.write(b'\\xff')", "printed no report"),
        ("while True: print('x' * 65536)", "prints more than a report can be"),
        (
            "import sys\nwhile True: print('x' * 65536, file=sys.stderr)",
            "prints more than a report can be",
        ),
    ],
)
def test_a_command_that_fails_is_said(
    visit: Visit, outbox: str, tmp_path: Path, text: str, said: str
) -> None:
    """With its own last words, or what it should have printed."""
    assert said in examined(visit, outbox, command(tmp_path, text))


def test_a_command_that_is_missing_is_said(visit: Visit, outbox: str) -> None:
    """With the setting that names another."""
    page = examined(visit, outbox, "no-such-command doctor --json")

    assert "no-such-command is not installed here" in page
    assert "OUTBOX_CONSOLE_DOCTOR" in page


@pytest.mark.parametrize(("content", "rights"), [("#!/bin/sh\n", 0o644), ("no program", 0o755)])
def test_a_command_that_cannot_be_started_is_said(
    visit: Visit, outbox: str, tmp_path: Path, content: str, rights: int
) -> None:
    """With the reason, and where to look."""
    program = tmp_path / "program"
    program.write_text(content)
    program.chmod(rights)

    page = examined(visit, outbox, str(program))

    assert "cannot be started" in page
    assert "OUTBOX_CONSOLE_DOCTOR" in page


def test_a_setting_that_went_wrong_since_is_said(tmp_path: Path) -> None:
    """As the file of the database's address that is gone: no page fails for it."""

    def gone() -> str:
        raise SettingsError("OUTBOX_DATABASE_URL_FILE cannot be read")

    doctor = Doctor(command(tmp_path, "print('[]')"), gone, "outbox")
    report = asyncio.run(doctor.examine())

    assert report.trouble is not None
    assert "OUTBOX_DATABASE_URL_FILE" in report.trouble.remedy


def test_what_it_runs_ends_with_the_console(outbox: str, tmp_path: Path) -> None:
    """And so do the children of that."""
    log = tmp_path / "log"
    text = f"""
        import os, signal
        os.fork()
        open({str(log)!r}, "a").write(f"{{os.getpid()}}\\n")
        signal.pause()
    """
    app = create_app(database_url=outbox, doctor=command(tmp_path, textwrap.dedent(text)))
    with served(app) as address, Browser(base_url=address, timeout=20) as browser:
        page = browser.get("/doctor")

        def ask() -> None:
            with suppress(httpx.TransportError):
                browser.submit(page, "/doctor", "")

        asking = Thread(target=ask)
        asking.start()
        wait_until(lambda: log.exists() and log.read_text().count("\n") == 2, 20, "both run")
    asking.join(20)
    children = [int(line) for line in log.read_text().split()]

    wait_until(lambda: not any(map(runs, children)), 20, "that both have ended")


def runs(pid: int) -> bool:
    """Whether there is such a process, and it is no zombie."""
    try:
        state = Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()[0]
    except OSError:
        return False
    return state not in "ZX"


def test_the_real_command_examines_what_the_console_shows(
    visit: Visit, outbox: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Installed beside it: the console's database, and the broker of its environment."""
    monkeypatch.setenv("OUTBOX_BROKER_URL", "amqp://127.0.0.1:1//")
    monkeypatch.setenv("OUTBOX_CONSOLE_ROLE", "viewer")

    page = examined(visit, outbox, settings.DOCTOR)

    assert "every variable is understood" in page
    assert "nothing listens there" in page


def test_whoever_asks_meanwhile_gets_the_same_report(tmp_path: Path) -> None:
    """The command runs once."""
    log = tmp_path / "log"
    line = command(tmp_path, f"open({str(log)!r}, 'a').write('x'); print('[]')")
    doctor = Doctor(line, lambda: "postgresql://localhost/x", "outbox")

    async def three() -> None:
        await asyncio.gather(*(doctor.examine() for _ in range(3)))

    asyncio.run(three())

    assert log.read_text() == "x"


def test_the_command_gets_no_setting_of_the_consoles() -> None:
    """A relay refuses variables that it does not know."""
    given = {"PATH": "/bin", "OUTBOX_CONSOLE_ROLE": "viewer", "OUTBOX_DATABASE_URL_FILE": "/x"}

    assert environment(given, "postgresql:///shop", "box") == {
        "PATH": "/bin",
        "OUTBOX_DATABASE_URL": "postgresql:///shop",
        "OUTBOX_SCHEMA": "box",
    }


@pytest.mark.parametrize("line", ["", "'"])
def test_no_command_is_refused_at_the_start(line: str) -> None:
    """Named by its setting."""
    with pytest.raises(SettingsError, match="OUTBOX_CONSOLE_DOCTOR"):
        create_app(database_url="postgresql://localhost/x", doctor=line)


def test_only_a_form_of_ours_starts_it(visit: Visit, outbox: str, tmp_path: Path) -> None:
    """Another site's does not."""
    log = tmp_path / "log"
    line = command(tmp_path, f"open({str(log)!r}, 'a').write('x'); print('[]')")
    app: Starlette = create_app(database_url=outbox, doctor=line)
    browser = visit(app)

    assert browser.post("/doctor", data={"token": "x"}).status_code == 403
    assert browser.get("/doctor").status_code == 200
    assert not log.exists()

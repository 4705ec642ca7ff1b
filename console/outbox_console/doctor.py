"""Has `outbox-relay doctor` examine database and broker, as a command of its own.

The console reaches no broker and knows nothing of a relay's settings: it runs the command that is
configured, as a person in a terminal would, and shows what that prints for programs. One runs at a
time; whoever asks meanwhile gets its report.
"""

import asyncio
import json
import logging
import os
import shlex
import shutil
import signal
import sys
from collections.abc import Callable, Mapping
from contextlib import suppress
from dataclasses import dataclass
from datetime import UTC, datetime
from pathlib import Path
from typing import Any, Final

from outbox_console.errors import Problem, SettingsError

#: Seconds. It waits for servers that do not answer, one after another.
_DEADLINE: Final = 90.0
#: Seconds for what was killed to be gone.
_DYING: Final = 2.0
#: Bytes of a report: one of a thousand queues takes a tenth.
_LARGEST: Final = 4_000_000
_LEVELS: Final = ("problem", "warn", "ok")
_log: Final = logging.getLogger(__name__)


@dataclass(frozen=True, slots=True)
class Finding:
    """One line of the report. `level` is problem, warn or ok; `remedy` says what to do."""

    name: str
    level: str
    text: str
    remedy: str


@dataclass(frozen=True, slots=True)
class Report:
    """What was found, the worst first; or why nothing could be found out."""

    at: datetime
    seconds: float
    findings: list[Finding]
    trouble: Problem | None = None

    @property
    def problems(self) -> int:
        """How many findings are problems."""
        return sum(finding.level == "problem" for finding in self.findings)


class Doctor:
    """Runs the command. `report` is the last one's, for all who look."""

    def __init__(self, command: str, database_url: Callable[[], str], schema: str) -> None:
        self._command, self._database_url, self._schema = command, database_url, schema
        self._running: asyncio.Task[Report] | None = None
        self.report: Report | None = None

    @property
    def command(self) -> str:
        """What is run, for people to see."""
        return self._command

    async def examine(self) -> Report:
        """A report that was begun no earlier than the last one ended."""
        if self._running is None or self._running.done():
            self._running = asyncio.create_task(self._examine())
        # Whoever asked first may have gone: what was begun is brought to its end.
        return await asyncio.shield(self._running)

    async def stop(self) -> None:
        """End what runs."""
        if self._running is not None and not self._running.done():
            self._running.cancel()
            await asyncio.wait({self._running})

    async def _examine(self) -> Report:
        began = asyncio.get_running_loop().time()
        findings: list[Finding] = []
        trouble = None
        try:
            findings = parse(await self._output())
        except Problem as problem:
            trouble = problem
        except SettingsError as error:
            trouble = Problem(503, "A setting is wrong", str(error))
        except Exception as error:  # whatever it is, people are told, and may ask again
            _log.exception("the doctor could not be asked")
            kind = type(error).__name__
            trouble = Problem(500, "The console has failed", f"See its log: {kind}.")
        seconds = asyncio.get_running_loop().time() - began
        self.report = Report(datetime.now(UTC), seconds, findings, trouble)
        return self.report

    async def _output(self) -> bytes:
        process = await self._started()
        try:
            async with asyncio.timeout(_DEADLINE):
                output, errors = await _ended(process)
        except BaseException as error:
            # Late, or the console ends: nothing of it goes on without us.
            _kill(process)
            with suppress(TimeoutError):
                async with asyncio.timeout(_DYING):
                    await _ended(process)
            if not isinstance(error, TimeoutError):
                raise
            raise Problem(
                503, f"The examination took longer than {_DEADLINE:.0f} seconds", "Run it again."
            ) from None
        if max(len(output), len(errors)) > _LARGEST:
            raise Problem(
                503,
                "The command prints more than a report can be",
                f"It was ended after {_LARGEST:,} bytes: look at OUTBOX_CONSOLE_DOCTOR.",
            )
        if process.returncode not in (0, 1):
            # It repeats neither passwords nor values of messages.
            said = errors.decode(errors="replace").strip().splitlines()[-1:] or ["nothing"]
            raise Problem(
                503, "The command could not examine anything", f"It said: {said[0][:500]}"
            )
        return output

    async def _started(self) -> asyncio.subprocess.Process:
        words = shlex.split(self._command)
        program = _found(words[0])
        if program is None:
            raise Problem(
                503,
                f"The command {words[0]} is not installed here",
                "Install outbox-relay beside the console, or set OUTBOX_CONSOLE_DOCTOR to a "
                "command that runs it where it is, such as "
                "`docker compose exec -T relay outbox-relay doctor --json`.",
            )
        try:
            return await asyncio.create_subprocess_exec(
                program,
                *words[1:],
                stdin=asyncio.subprocess.DEVNULL,
                stdout=asyncio.subprocess.PIPE,
                stderr=asyncio.subprocess.PIPE,
                env=environment(os.environ, self._database_url(), self._schema),
                start_new_session=True,
            )
        except OSError as error:
            why = error.strerror or type(error).__name__
            raise Problem(
                503,
                f"The command {words[0]} cannot be started",
                f"{why}: look at OUTBOX_CONSOLE_DOCTOR, and at the rights of {program}.",
            ) from error


async def _ended(process: asyncio.subprocess.Process) -> tuple[bytes, bytes]:
    """What it printed for us and said to people, once it has ended; of each as much as is kept."""
    told = await asyncio.gather(_read(process, process.stdout), _read(process, process.stderr))
    await process.wait()
    return told


async def _read(process: asyncio.subprocess.Process, stream: asyncio.StreamReader | None) -> bytes:
    """All of it; of what prints more than a report can be the beginning, and that is its end."""
    assert stream is not None
    read = b""
    while part := await stream.read(65536):
        if len(read) > _LARGEST:
            _kill(process)
        else:
            read += part
    return read


def _kill(process: asyncio.subprocess.Process) -> None:
    """With all that it has started."""
    with suppress(ProcessLookupError):
        os.killpg(process.pid, signal.SIGKILL)


def environment(inherited: Mapping[str, str], database_url: str, schema: str) -> dict[str, str]:
    """What the command gets: all but the console's own settings, which a relay refuses."""
    kept = {k: v for k, v in inherited.items() if not k.startswith("OUTBOX_CONSOLE_")}
    kept.pop("OUTBOX_DATABASE_URL_FILE", None)
    return {**kept, "OUTBOX_DATABASE_URL": database_url, "OUTBOX_SCHEMA": schema}


def parse(output: bytes) -> list[Finding]:
    """The findings of a report for programs, the worst first; raises Problem where it is none."""
    try:
        read = json.loads(output)
        if not read or not isinstance(read, list):
            raise ValueError
        found = [_finding(each) for each in read]
    except (ValueError, TypeError, KeyError, AttributeError, RecursionError) as error:
        raise Problem(
            503,
            "The command printed no report",
            "OUTBOX_CONSOLE_DOCTOR must end with what prints one for programs: doctor --json.",
        ) from error
    return sorted(found, key=lambda finding: _LEVELS.index(finding.level))


def _finding(each: Any) -> Finding:
    level = each["level"] if each["level"] in _LEVELS else "problem"
    return Finding(str(each["name"]), level, str(each["text"]), str(each.get("remedy", "")))


def _found(program: str) -> str | None:
    """The program: beside this Python first, where both were installed together."""
    beside = Path(sys.executable).parent / program
    return str(beside) if beside.is_file() else shutil.which(program)

"""Has `outbox-relay doctor` examine database and broker, as a command of its own.

The console reaches no broker and knows nothing of a relay's settings: it runs the command that is
configured, as a person in a terminal would, and shows what that prints for programs. One runs at a
time; whoever asks meanwhile gets its report.
"""

import asyncio
import json
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

from outbox_console.errors import Problem

#: Seconds. It waits for servers that do not answer, one after another.
_DEADLINE: Final = 90.0
#: Bytes of a report: one of a thousand queues takes a tenth.
_LARGEST: Final = 4_000_000
_LEVELS: Final = ("problem", "warn", "ok")


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
        self.report = await asyncio.shield(self._running)
        return self.report

    async def _examine(self) -> Report:
        began = asyncio.get_running_loop().time()
        findings: list[Finding] = []
        trouble = None
        try:
            findings = parse(await self._output())
        except Problem as problem:
            trouble = problem
        seconds = asyncio.get_running_loop().time() - began
        return Report(datetime.now(UTC), seconds, findings, trouble)

    async def _output(self) -> bytes:
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
        process = await asyncio.create_subprocess_exec(
            program,
            *words[1:],
            stdin=asyncio.subprocess.DEVNULL,
            stdout=asyncio.subprocess.PIPE,
            stderr=asyncio.subprocess.PIPE,
            env=environment(os.environ, self._database_url(), self._schema),
            start_new_session=True,
        )
        try:
            output, errors = await asyncio.wait_for(process.communicate(), _DEADLINE)
        except TimeoutError:
            with suppress(ProcessLookupError):
                os.killpg(process.pid, signal.SIGKILL)
            await process.wait()
            raise Problem(
                503, f"The examination took longer than {_DEADLINE:.0f} seconds", "Run it again."
            ) from None
        if process.returncode not in (0, 1) or len(output) > _LARGEST:
            # It repeats neither passwords nor values of messages.
            said = errors.decode(errors="replace").strip().splitlines()[-1:] or ["nothing"]
            raise Problem(
                503, "The command could not examine anything", f"It said: {said[0][:500]}"
            )
        return output


def environment(inherited: Mapping[str, str], database_url: str, schema: str) -> dict[str, str]:
    """What the command gets: all but the console's own settings, which a relay refuses."""
    kept = {k: v for k, v in inherited.items() if not k.startswith("OUTBOX_CONSOLE_")}
    kept.pop("OUTBOX_DATABASE_URL_FILE", None)
    return {**kept, "OUTBOX_DATABASE_URL": database_url, "OUTBOX_SCHEMA": schema}


def parse(output: bytes) -> list[Finding]:
    """The findings of a report for programs, the worst first; raises Problem where it is none."""
    try:
        found = [_finding(each) for each in json.loads(output)]
    except (ValueError, TypeError, KeyError) as error:
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

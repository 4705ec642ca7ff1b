"""What type checkers are told does not depend on which libraries' types are installed."""

from pathlib import Path

from mypy import api

PROGRAM = """
from collections.abc import Awaitable
from celery_outbox import OutboxCelery

class Connection:
    def rollback(self) -> None: ...

class AsyncConnection:
    async def rollback(self) -> None: ...

outbox = OutboxCelery("shop").outbox
now: bool = outbox.cancel(Connection(), "id")
alias: bool = outbox.cancel("default", "id")
later: Awaitable[bool] = outbox.cancel(AsyncConnection(), "id")
"""


def test_cancel(tmp_path: Path) -> None:
    """It answers at once, or on an asynchronous connection something to await."""
    program = tmp_path / "program.py"
    program.write_text(PROGRAM)
    report, errors, status = api.run(
        ["--strict", f"--cache-dir={tmp_path}", "--follow-imports=silent", str(program)]
    )

    assert (status, errors) == (0, ""), report

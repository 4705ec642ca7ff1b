"""Runs examples as users do: each in its own folder, as processes on the test's database."""

import os
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path
from urllib.parse import unquote, urlsplit

import pytest

from servers.ports import free_port

EXAMPLES = Path(__file__).resolve().parents[2] / "examples"
Run = Callable[..., str]


def environment(url: str) -> dict[str, str]:
    """Return the environment in which an example finds its database, and a broker that is down."""
    parts = urlsplit(url)
    return {
        **{k: v for k, v in os.environ.items() if not k.startswith(("OUTBOX_", "DJANGO_"))},
        "DATABASE_URL": url,
        "PGHOST": parts.hostname or "",
        "PGPORT": str(parts.port),
        "PGUSER": unquote(parts.username or ""),
        "PGPASSWORD": unquote(parts.password or ""),
        "PGDATABASE": parts.path.removeprefix("/"),
        "BROKER_URL": f"amqp://guest:guest@127.0.0.1:{free_port()}//",
        "PYTHONDONTWRITEBYTECODE": "1",
    }


@pytest.fixture
def example(request: pytest.FixtureRequest) -> Run:
    """Run Python in an example's folder: ``example("django", url, "manage.py", "migrate")``."""

    def run(name: str, url: str, *arguments: str, seconds: float = 100, **more: str) -> str:
        done = subprocess.run(
            [sys.executable, *arguments],
            cwd=EXAMPLES / name,
            env=environment(url) | more,
            capture_output=True,
            text=True,
            timeout=seconds,
            check=False,
        )
        assert done.returncode == 0, done.stdout + done.stderr
        return done.stdout

    return run

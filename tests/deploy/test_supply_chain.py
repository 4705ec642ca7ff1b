"""What we install is pinned by its hash, licensed as decided, and looked up for advisories."""

import json
import os
import re
import subprocess
import tomllib
from collections.abc import Iterator
from contextlib import contextmanager
from http.server import BaseHTTPRequestHandler, HTTPServer
from threading import Thread
from typing import Any

import pytest
import yaml

import licences
from servers.ports import free_port
from tests.deploy.board import ROOT

#: Licences that may be part of one of our images; another one wants a decision.
DECIDED = {
    "Apache-2.0",
    "BSD-2-Clause",
    "BSD-3-Clause",
    "LGPL-3.0-only",
    "MIT",
    "MPL-2.0",
    "PSF-2.0",
}
WORKFLOWS = sorted((ROOT / ".github/workflows").glob("*.yml"))


def test_every_locked_file_has_its_hash() -> None:
    """And comes from one place."""
    packages = tomllib.loads((ROOT / "uv.lock").read_text())["package"]
    foreign = [p for p in packages if "registry" in p["source"]]
    files = [f for p in foreign for f in (*p.get("wheels", ()), p.get("sdist")) if f]

    assert len(files) > 1000
    assert {p["source"]["registry"] for p in foreign} == {"https://pypi.org/simple"}
    assert all(re.fullmatch(r"sha256:[0-9a-f]{64}", file["hash"]) for file in files)


def test_the_list_of_licences_is_current() -> None:
    """After a change: make licences."""
    assert licences.PAGE.read_text() == licences.as_page()


def test_every_licence_has_been_decided_about() -> None:
    """Each part of every expression."""
    rows = re.findall(r"(?m)^\| [\w-]+ \| (.*) \| [^|]*outbox[^|]*\|$", licences.as_page())
    parts = {part for row in rows for part in re.split(r" AND | OR |[()]", row) if part}

    assert len(rows) > 30
    assert parts - DECIDED == set()


@contextmanager
def advisories(vulnerable: bool) -> Iterator[str]:
    """The address of a service that knows of a vulnerability, or of none."""

    class Service(BaseHTTPRequestHandler):
        def do_POST(self) -> None:
            asked = json.loads(self.rfile.read(int(self.headers["Content-Length"])))
            results: list[Any] = [{} for _ in asked["queries"]]
            if vulnerable:
                results[0] = {"vulns": [{"id": "TEST-1", "modified": "2026-01-01T00:00:00Z"}]}
            self.answer({"results": results})

        def do_GET(self) -> None:
            self.answer({"id": "TEST-1", "modified": "2026-01-01T00:00:00Z", "affected": []})

        def answer(self, body: object) -> None:
            data = json.dumps(body).encode()
            self.send_response(200)
            self.send_header("Content-Length", str(len(data)))
            self.end_headers()
            self.wfile.write(data)

        def log_message(self, format: str, *args: object) -> None:
            pass

    with HTTPServer(("127.0.0.1", 0), Service) as server:
        Thread(target=server.serve_forever, daemon=True).start()
        yield f"http://127.0.0.1:{server.server_port}/"
        server.shutdown()


def audit(service: str) -> subprocess.CompletedProcess[str]:
    """Run `make audit` against a service."""
    return subprocess.run(
        ["make", "audit", f"ARGS=--service-url={service}"],
        cwd=ROOT,
        env={**os.environ, "UV_HTTP_RETRIES": "0"},
        capture_output=True,
        text=True,
        timeout=60,
        check=False,
    )


def test_an_audit_without_findings_passes() -> None:
    """It says how many packages it has asked about."""
    with advisories(vulnerable=False) as service:
        done = audit(service)

    assert done.returncode == 0, done.stderr
    assert "no known vulnerabilities" in done.stdout + done.stderr


def test_an_audit_with_a_finding_fails() -> None:
    """And names it."""
    with advisories(vulnerable=True) as service:
        done = audit(service)

    assert done.returncode != 0
    assert "TEST-1" in done.stdout + done.stderr
    assert "Not audited" not in done.stderr


def test_an_audit_that_nobody_answers_does_not_pass() -> None:
    """Silence is not innocence."""
    done = audit(f"http://127.0.0.1:{free_port()}/")

    assert done.returncode != 0
    assert "Not audited: nobody could be asked" in done.stderr


@pytest.mark.parametrize("workflow", WORKFLOWS, ids=lambda file: file.stem)
def test_a_workflow_calls_make_and_may_only_read(workflow: Any) -> None:
    """What runs there runs anywhere; actions are pinned to a version."""
    described = yaml.safe_load(workflow.read_text())
    targets = set(re.findall(r"(?m)^([a-z-]+):", (ROOT / "Makefile").read_text()))
    steps = [step for job in described["jobs"].values() for step in job["steps"]]

    assert described["permissions"] == {"contents": "read"}
    for step in steps:
        if "run" in step:
            assert re.fullmatch(r"make [a-z-]+", step["run"])
            assert step["run"].removeprefix("make ") in targets
        else:
            assert re.fullmatch(r"actions/[a-z-]+@v\d+", step["uses"])

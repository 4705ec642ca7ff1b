"""OUTBOX_TRACING: off needs nothing, and what is wrong with on is said at the start."""

import subprocess
import sys

import pytest

from tests.relay.conftest import Cli

BROKER = "redis://127.0.0.1:1"


def test_off_needs_nothing(database: str, broker_url: str) -> None:
    """A relay runs where OpenTelemetry is not installed, and imports nothing that would need it."""
    program = (
        "import sys; sys.modules['opentelemetry'] = None;"
        "sys.argv[1:] = ['run', '--drain', '--database-url', sys.argv[1],"
        " '--broker-url', sys.argv[2]]; from outbox_relay.__main__ import main\n"
        "try:\n main()\nexcept SystemExit as end:\n assert not end.code, end.code\n"
        "print('outbox_relay.observe.tracing.sdk' in sys.modules)"
    )
    done = subprocess.run(
        [sys.executable, "-c", program, database, broker_url],
        capture_output=True,
        text=True,
        timeout=60,
        check=True,
    )
    assert done.stdout.strip() == "False"


def test_a_missing_extra_is_named(cli: Cli, monkeypatch: pytest.MonkeyPatch) -> None:
    """With what to install, and the way to do without."""
    monkeypatch.setitem(sys.modules, "opentelemetry", None)
    monkeypatch.delitem(sys.modules, "outbox_relay.observe.tracing.sdk", raising=False)
    answer = cli("run", OUTBOX_TRACING="on", OUTBOX_BROKER_URL=BROKER)
    assert answer.code == 2
    assert "pip install 'outbox-relay[otel]'" in answer.err
    assert "Traceback" not in answer.err


@pytest.mark.parametrize(
    ("environment", "said"),
    [
        ({"OUTBOX_TRACING": "yes"}, "OUTBOX_TRACING='yes': say off or on"),
        ({"OTEL_TRACES_EXPORTER": "pigeon"}, "OTEL_TRACES_EXPORTER: there is no exporter 'pigeon'"),
        (
            {"OTEL_EXPORTER_OTLP_PROTOCOL": "smoke"},
            "OTEL_EXPORTER_OTLP_PROTOCOL: say one of http/protobuf, grpc",
        ),
        (
            {"OTEL_EXPORTER_OTLP_PROTOCOL": "grpc"},
            "opentelemetry-exporter-otlp-proto-grpc",
        ),
    ],
    ids=["value", "exporter", "protocol", "not installed"],
)
def test_what_cannot_be_followed_is_named(cli: Cli, environment: dict[str, str], said: str) -> None:
    """By its variable, before anything is claimed."""
    answer = cli("run", **{"OUTBOX_TRACING": "on", "OUTBOX_BROKER_URL": BROKER, **environment})
    assert answer.code == 2
    assert said in answer.err
    assert "Traceback" not in answer.err

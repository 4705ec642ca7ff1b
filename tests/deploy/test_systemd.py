"""The systemd unit is one that systemd takes, and gives the relay the time that it asks for."""

import shutil
import subprocess
import sys
from configparser import ConfigParser
from pathlib import Path

import pytest

from outbox_relay.settings.table import GRACE_PERIOD

UNIT = Path(__file__).resolve().parents[2] / "deploy" / "systemd" / "outbox-relay@.service"


def test_it_waits_for_the_grace_period() -> None:
    """By the five seconds more that the page on operations asks for."""
    unit = ConfigParser(interpolation=None)
    unit.optionxform = str  # type: ignore[assignment]  # as the documentation of ConfigParser has it
    unit.read(UNIT)

    assert float(unit["Service"]["TimeoutStopSec"]) >= GRACE_PERIOD.initial + 5
    assert unit["Service"]["ExecStart"].endswith("/bin/outbox-relay run")


@pytest.mark.skipif(not shutil.which("systemd-analyze"), reason="systemd is not installed")
def test_systemd_takes_it(tmp_path: Path) -> None:
    """Every line is known, and the command is one that can be started."""
    command = Path(sys.executable).with_name("outbox-relay")
    unit = tmp_path / UNIT.name.replace("@", "@1")
    unit.write_text(UNIT.read_text().replace("/opt/outbox/bin/outbox-relay", str(command)))

    done = subprocess.run(
        ["systemd-analyze", "verify", unit], capture_output=True, text=True, check=False, timeout=60
    )

    assert (done.returncode, done.stderr) == (0, "")

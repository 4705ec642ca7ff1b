"""Every alert fires when it should, stays silent when it should, and says where to read on."""

import re
import subprocess
from pathlib import Path

import pytest

from tests.deploy.board import ALERTS, ROOT, alerts

FOLDER = ALERTS.parent


@pytest.mark.parametrize(
    "arguments",
    [("test", "rules", "alerts_test.yaml"), ("check", "config", "prometheus.yml")],
    ids=["alerts", "example"],
)
def test_prometheus_agrees(promtool: Path, arguments: tuple[str, ...]) -> None:
    """The alerts pass their own tests, and the example is a configuration that includes them."""
    done = subprocess.run(
        [promtool, *arguments], cwd=FOLDER, capture_output=True, text=True, timeout=60
    )

    assert done.returncode == 0, done.stdout + done.stderr


@pytest.mark.parametrize("alert", alerts())
def test_an_alert_is_tested_both_ways(alert: str) -> None:
    """Some test expects it to fire, and some other that it does not."""
    text = (FOLDER / "alerts_test.yaml").read_text()

    assert re.search(rf"alertname: {alert}\n +exp_alerts:", text), "nothing proves that it fires"
    assert re.search(rf"alertname: {alert} }}", text), "nothing proves that it stays silent"


@pytest.mark.parametrize(("alert", "rule"), alerts().items())
def test_an_alert_leads_to_its_section_of_the_runbook(alert: str, rule: str) -> None:
    """The page has a heading of that name."""
    document, _, anchor = re.findall(r"runbook: (\S+)", rule)[0].partition("#")

    assert anchor == alert.lower()
    assert re.search(rf"(?m)^#+ {alert}$", (ROOT / document).read_text())

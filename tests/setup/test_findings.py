"""Findings have one form and pin what they install; `make findings` says whether they are so."""

import re
import subprocess
from pathlib import Path

import pytest

FOLDER = Path(__file__).resolve().parents[2] / "findings"
FINDINGS = sorted(FOLDER.glob("*.sh"))
LABELS = ["Versions", "Expected", "Happens", "Matters"]
OURS = r"\b(celery_outbox|celery_inbox|outbox_relay|outbox_migrations)\b"


@pytest.mark.parametrize("finding", FINDINGS, ids=lambda finding: finding.stem)
def test_a_finding_says_what_it_is(finding: Path) -> None:
    """A sentence, then versions, what one expects, what happens and why it matters."""
    shebang, sentence, *rest = finding.read_text().splitlines()
    comment = [line for line in rest if line.startswith("#")]

    assert shebang == "#!/usr/bin/env bash"
    assert re.fullmatch(r"# .+[.:]", sentence) or comment[0] != "#"
    assert re.findall(r"(?m)^# (\w+): ", "\n".join(comment)) == LABELS
    assert subprocess.run(["bash", "-n", finding], check=False).returncode == 0


@pytest.mark.parametrize("finding", FINDINGS, ids=lambda finding: finding.stem)
def test_a_finding_is_about_others_in_one_version(finding: Path) -> None:
    """It installs exact versions, and nothing of ours."""
    text = finding.read_text()
    (installed,) = re.findall(r"(?m)^packages (.*)$", text)

    assert all(re.fullmatch(r"[\w.\[\]-]+==[\w.]+", package) for package in installed.split())
    assert not re.search(OURS, text)
    assert text.count('. "$(dirname "$0")/lib/finding.sh"') == 1

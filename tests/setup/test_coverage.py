"""`make test` ends with what its tests have run of each package."""

import json
from pathlib import Path

from tests.fixtures.coverage import covered


def test_files_are_summed_up_by_package(tmp_path: Path) -> None:
    """By statements, not by files; a package of which nothing was loaded is left out."""
    report = tmp_path / "coverage.json"
    counts = {
        "relay/outbox_relay/core/decide.py": (90, 90),
        "relay/outbox_relay/cli/main.py": (0, 10),
        "worker/celery_inbox/task.py": (1, 2),
    }
    files = {
        name: {"summary": {"covered_lines": run, "num_statements": all_}}
        for name, (run, all_) in counts.items()
    }
    report.write_text(json.dumps({"files": files}))

    relay, worker, _ = covered(report)

    assert relay.split() == ["outbox_relay", "90.0", "%", "of", "100"]
    assert worker.split() == ["celery_inbox", "50.0", "%", "of", "2"]

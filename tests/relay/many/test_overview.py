"""Those who need somebody come first; otherwise outboxes stand as people count them."""

from pathlib import Path

import pytest

from outbox_relay.many import overview
from outbox_relay.many.outbox import Outbox, natural
from outbox_relay.operator.status import Counts, Flow, Status
from tests.relay.many.test_lines import base

AWAY = "s\u00b2"


def test_names_are_ordered_as_people_count() -> None:
    """By the numbers in them, wherever these stand, and else by their letters."""
    names = ["app/tenant_10", "app/tenant_2", "app2", "app10", "app", "7", "app/tenant", AWAY]

    assert sorted(names, key=natural) == [
        "7",
        "app",
        "app/tenant",
        "app/tenant_2",
        "app/tenant_10",
        "app2",
        "app10",
        AWAY,
    ]


def test_status_lists_them_so(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    """Where nothing else tells them apart."""
    names = [f"app/tenant_{number}" for number in (10, 2, 1, 21, 3)]
    idle = Status(Counts(0, 0, 0, 0.0, 0), Flow(), [])
    monkeypatch.setattr(overview, "ask_each", lambda *_: dict.fromkeys(names, idle))
    outboxes = [Outbox(name, base()) for name in names]

    seen = overview.look(outboxes, "outbox_inspector")

    assert [each.name for each in seen] == [f"app/tenant_{number}" for number in (1, 2, 3, 10, 21)]

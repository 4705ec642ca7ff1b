"""docs/operations.md names every setting, metric and log event, and no link leads nowhere."""

import re

import pytest
from prometheus_client import generate_latest

import settings_page
from outbox_relay.observe import logs
from outbox_relay.observe.metrics import Metrics
from tests.deploy.board import ROOT, alerts, metrics_in

PAGE = (ROOT / "docs/operations.md").read_text()
PAGES = sorted((ROOT / "docs").glob("*.md"))


def section(title: str) -> str:
    """What stands under a heading, up to the next one of its rank."""
    return re.split(r"(?m)^## ", PAGE.partition(f"\n## {title}\n")[2])[0]


def test_the_table_of_settings_is_the_one_that_is_read() -> None:
    """Each with its row and its default, secrets also as a file."""
    assert settings_page.written(PAGE) == PAGE, "make settings-page"


def test_every_metric_is_there() -> None:
    """The table lists what the relay shows of its own, no more and no less."""
    shown = {
        line.split(" ")[2]
        for line in generate_latest(Metrics().registry).decode().splitlines()
        if line.startswith("# TYPE outbox_") and not line.endswith("_created gauge")
    }
    listed = set(re.findall(r"(?m)^\| `(outbox_\w+)`", section("Monitoring")))

    assert listed == shown


def test_every_event_is_there() -> None:
    """The same as in the relay's own table."""
    ours = set(re.findall(r"\b[a-z_]+\b", _cells(logs.__doc__ or "")))
    listed = set(re.findall(r"[a-z_]+", _cells(section("Logs"))))

    assert listed == ours


def test_every_alert_has_an_entry_that_helps() -> None:
    """What it means, where to look, what to do."""
    for alert in alerts():
        entry = PAGE.partition(f"\n### {alert}\n")[2].partition("\n##")[0]
        assert re.findall(r"(?m)^\*\*(\w+)\.\*\*", entry) == ["Means", "Look", "Do"], alert


#: Those that `outbox-migrate grant` makes, of producers, relays and people.
ROLES = ("producer", "relay", "inspector", "viewer", "reader", "operator")


def test_the_page_names_no_metric_that_is_not_there() -> None:
    """Prose ages faster than tables."""
    families = set(re.findall(r"(?m)^\| `(outbox_\w+)`", section("Monitoring")))
    roles = {f"outbox_{each}" for each in ROLES}
    events = set(re.findall(r"outbox_\w+", _cells(section("Logs"))))

    named = metrics_in(PAGE) - {"outbox_database_url", "outbox_schema"}
    assert named - families - roles - events == set()


@pytest.mark.parametrize("page", PAGES, ids=lambda page: page.name)
def test_no_link_within_the_documentation_is_broken(page: str) -> None:
    """Neither to a heading nor to a page that is meant to exist."""
    text = (ROOT / "docs" / page).read_text()
    broken = [
        link
        for link in re.findall(r"\]\(([^)\s]+)\)", text)
        if "://" not in link and not _exists(page, link)
    ]

    assert broken == []


def _exists(page: str, link: str) -> bool:
    name, _, anchor = link.partition("#")
    target = (ROOT / "docs" / page).parent / name if name else ROOT / "docs" / page
    if not target.exists():
        return False
    headings = re.findall(r"(?m)^#+ (.*)$", target.read_text()) if anchor else []
    return not anchor or anchor in {_anchor(heading) for heading in headings}


def _anchor(heading: str) -> str:
    return re.sub(r"[^\w\- ]", "", heading.lower()).replace(" ", "-")


def _cells(table: str) -> str:
    """The first column of a table's rows."""
    rows = [line.split("|")[1] for line in table.splitlines() if line.startswith("|")]
    return " ".join(rows[2:])


def _source(file: str) -> str:
    return (ROOT / file).read_text()

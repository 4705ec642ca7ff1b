"""How values become statements: ratios within rounds, verdicts, and the page that shows them."""

from pathlib import Path

from bench.report.figures import Figures
from bench.report.goals import GOALS
from bench.report.results import Report
from bench.report.tables import BEGIN, END, write_page

LIMIT = "1 classic queue, limit"
RELAY = "1 classic queue, 1 process"


def figures(*rounds: tuple[float, float]) -> Figures:
    """Rates of the limit and of the relay, round by round."""
    found = Figures()
    for number, (limit, relay) in enumerate(rounds):
        found.add(number, LIMIT, {"rate": limit})
        found.add(number, RELAY, {"rate": relay})
    return found


def test_ratios_are_taken_within_rounds() -> None:
    """A machine that is half as fast in the next round changes no ratio."""
    found = figures((1000, 900), (500, 450), (2000, 1800))

    assert found.ratio(f"{RELAY}/rate", to=f"{LIMIT}/rate") == 0.9
    assert found.median(f"{RELAY}/rate") == 900


def test_a_goal_is_met_or_not() -> None:
    """The verdict compares with the goal; a goal nobody measured has none."""
    met = GOALS[0].verdict(figures((1000, 900)))
    short = GOALS[0].verdict(figures((1000, 890)))

    assert met is not None
    assert met.met
    assert short is not None
    assert not short.met
    assert GOALS[0].verdict(Figures()) is None


def test_the_page_keeps_what_people_wrote(tmp_path: Path) -> None:
    """Only the measured section is replaced, whatever stands around it."""
    page = tmp_path / "performance.md"
    page.write_text(f"# Title\n\nBefore.\n\n{BEGIN}\nold figures\n{END}\n\nAfter.\n")
    report = Report({"machine": "a test"}, figures((1000, 900)))

    write_page(report, page, "plot.png")
    write_page(report, page, "plot.png")

    text = page.read_text()
    assert "old figures" not in text
    assert text.count("| machine | a test |") == 1
    assert text.startswith("# Title\n\nBefore.\n")
    assert text.endswith("After.\n")

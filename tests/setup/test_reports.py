"""Reports of failures reach whoever reads them."""

from pathlib import Path

from tests.fixtures.reports import sendable


def test_a_report_holds_nothing_that_cannot_be_sent() -> None:
    """Half a surrogate pair is escaped, an unknown value is shown, and data stays as it is."""
    report = {"text": "half \ud83d", "where": ("a", [Path("b")]), "seconds": 0.5, "none": None}

    assert sendable(report) == {
        "text": "half \\ud83d",
        "where": ("a", [repr(Path("b"))]),
        "seconds": 0.5,
        "none": None,
    }

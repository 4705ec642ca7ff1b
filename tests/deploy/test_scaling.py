"""docs/scaling.md says of a day what docs/performance.md says of a second."""

import scaling


def test_the_table_is_computed_from_what_was_measured() -> None:
    """After a new measurement: make scaling."""
    assert scaling.PAGE.read_text() == scaling.as_page()


def test_a_day_is_four_times_as_long_as_its_peak() -> None:
    """Ten thousand a second at most are 216 million a day."""
    assert scaling.row("x", 10_000) == "| x | 10,000 | 216 million |\n"

"""Two commits side by side: medians of each, and ratios that are taken within a round."""

from bench.compare.beside import table


def test_ratios_are_of_one_round_and_what_one_side_lacks_is_left_out() -> None:
    """A machine that was slow for a round was slow for both sides."""
    rounds = {
        "0780f61": [{"drain/rate": 100.0, "old/rate": 1.0}, {"drain/rate": 10.0}],
        "here": [{"drain/rate": 90.0, "new/rate": 1.0}, {"drain/rate": 8.0}],
    }

    assert list(table(rounds)) == [
        "| | 0780f61 | here | here against 0780f61 |",
        "|---|---|---|---|",
        "| drain, rate | 55.0 /s | 49.0 /s | 0.850 (0.80 to 0.90) |",
    ]


def test_how_busy_others_were_is_no_row() -> None:
    """It says what a round is worth, and nothing of the two commits; nor does a figure of zero."""
    quiet = {"drain/others": 0.0, "drain/silence": 0.0, "drain/longest": 0.0}

    assert list(table({"then": [quiet], "now": [quiet]}))[2:] == [
        "| drain, longest | 0.0 ms | 0.0 ms | - |"
    ]

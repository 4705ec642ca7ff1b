"""Rates of two servers side by side: medians, and ratios that are taken within a round."""

from bench.compare.versions import table

LIMIT, RELAY = "1 classic queue, limit/rate", "1 classic queue, 1 process/rate"


def test_ratios_are_of_one_round_and_what_is_missing_is_said() -> None:
    """A machine that was slow for a round is slow for both."""
    rounds = {
        "3.10": [{LIMIT: 100.0, RELAY: 90.0}, {LIMIT: 10.0, RELAY: 8.0}, {LIMIT: 50.0}],
        "4.3": [],
    }

    lines = list(table(rounds))

    assert lines[0] == "| | RabbitMQ 3.10 | RabbitMQ 4.3 |"
    assert "| 1 classic queue, limit | 50/s | - |" in lines
    assert "| 1 classic queue, 1 process | 49/s | - |" in lines
    assert "| 1 classic queue, 1 process against the limit | 0.85 | - |" in lines

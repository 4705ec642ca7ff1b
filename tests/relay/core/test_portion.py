"""What is very much is done a moment at a time."""

from outbox_relay.core.portion import QUICK, SLOW, Portion


def test_quick_portions_grow_and_slow_ones_shrink() -> None:
    """Never beyond the bounds; what is neither stays as it is."""
    portion = Portion(200, 1000)
    sizes = []
    for seconds in (0.0, 0.0, 0.0, 0.0, (QUICK + SLOW) / 2, 1.0, 1.0, 1.0):
        portion.took(seconds)
        sizes.append(portion.size)

    assert sizes == [400, 800, 1000, 1000, 1000, 500, 250, 200]

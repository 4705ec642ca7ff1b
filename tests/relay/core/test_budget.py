"""What takes long is done less often, and never not at all."""

from outbox_relay.core.budget import Budget


def test_a_quick_chore_keeps_its_pause() -> None:
    """Due at once, and then every so often."""
    budget = Budget(5.0)

    assert budget.is_due(100.0)
    budget.took(0.4)
    assert not budget.is_due(104.9)
    assert budget.is_due(105.0)


def test_a_slow_chore_takes_a_share_of_the_time() -> None:
    """And its usual pause again once it is quick."""
    budget = Budget(5.0, share=0.1)
    budget.is_due(0.0)
    budget.took(3.0)

    assert not budget.is_due(29.0)
    assert budget.is_due(30.0)
    budget.took(0.1)
    assert budget.is_due(35.0)


def test_the_longest_pause_and_no_pause() -> None:
    """However long it takes; and whoever asks for it need not wait."""
    budget = Budget(5.0, longest=60.0)
    budget.is_due(0.0)
    budget.took(1000.0)

    assert not budget.is_due(59.0)
    assert budget.is_due(60.0)
    budget.soon()
    assert budget.is_due(60.1)


def test_what_is_done_in_portions_takes_half_of_the_time() -> None:
    """More to do is no reason to do nothing else; after the last, its usual pause is back."""
    budget = Budget(0.2, share=0.1)
    budget.is_due(0.0)
    budget.took(3.0)
    budget.more()

    assert not budget.is_due(5.9)
    assert budget.is_due(6.0)
    budget.took(0.01)
    assert not budget.is_due(6.1)
    assert budget.is_due(6.2)

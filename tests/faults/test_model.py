"""The model's games, thousands of them, and other ones each time (FAULTS_SEED=n repeats a run)."""

import pytest
from hypothesis import settings

from tests.faults.storm import seed
from tests.relay.model.test_model import SHORT, play

GAMES = 4000


@pytest.mark.timeout(900)
def test_no_game_is_lost() -> None:
    """Longer games than those of `make test`, never the same."""
    budget = settings(SHORT, max_examples=GAMES, stateful_step_count=60, derandomize=False)
    play(budget, number=seed())

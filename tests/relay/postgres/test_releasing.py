"""Claims are given back, and kept, by those who hold them."""

from outbox_relay.postgres.store import Store
from tests.fixtures.rows import commit_rows
from tests.relay.postgres.steps import OVER, TERM, OpenStore, claim


def test_what_is_released_can_be_claimed_at_once(emptied_database: str, store: Store) -> None:
    """No term has to pass, and no attempt is counted."""
    commit_rows(emptied_database)
    (message,) = claim(store, number=1)

    store.release([message.held])

    (again,) = claim(store, number=2)
    assert (again.attempts, again.suspicion) == (0, 0)


def test_suspicion_adds_up(emptied_database: str, store: Store) -> None:
    """Each time a channel dies with it."""
    commit_rows(emptied_database)
    for number in (1, 2):
        (message,) = claim(store, number=number)
        store.release([message.held], suspicious=True)

    assert claim(store, number=3)[0].suspicion == 2


def test_releasing_is_fenced(emptied_database: str, open_store: OpenStore) -> None:
    """A relay that was away cannot give back what another one holds."""
    commit_rows(emptied_database)
    slow, other = open_store(), open_store()
    (late,) = claim(slow, number=1, term=OVER)
    claim(other, number=2)

    slow.release([late.held], suspicious=True)

    assert claim(slow, number=3) == []


def test_a_renewed_claim_is_not_over(emptied_database: str, open_store: OpenStore) -> None:
    """What takes long is kept."""
    commit_rows(emptied_database)
    holder = open_store()
    (message,) = claim(holder, number=1, term=OVER)

    holder.renew([message.held], TERM)

    assert claim(open_store(), number=2) == []


def test_renewing_is_fenced(emptied_database: str, open_store: OpenStore) -> None:
    """A claim that was lost cannot be prolonged for somebody else."""
    commit_rows(emptied_database)
    slow, other = open_store(), open_store()
    (late,) = claim(slow, number=1, term=OVER)
    claim(other, number=2, term=OVER)

    slow.renew([late.held], TERM)

    assert len(claim(other, number=3)) == 1

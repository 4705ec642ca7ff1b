"""What the replies to a transaction say about each of its messages."""

from hiredis import ReplyError

from outbox_relay.broker.redis.batch import Batch
from outbox_relay.broker.redis.routing import Route, Target
from outbox_relay.broker.redis.verdict import judge
from outbox_relay.core.message import Message, Reason
from tests.relay.messages import messages

QUEUED = b"QUEUED"
ABORTED = ReplyError("EXECABORT Transaction discarded because of previous errors.")


def a_batch(sent: list[Message], queues: int = 1, *, fanout: bool = False) -> Batch:
    """A batch in which each message goes to so many places of its own, and one command of ours."""
    batch = Batch(1)
    for message in sent:
        targets = tuple(Target(b"LPUSH", b"%d-%d" % (message.id, n)) for n in range(queues))
        batch.add(message, Route(fanout, (targets,)), b"tag")
    batch.seal([b"mark"], 0.0)
    return batch


def executed(*replies: object) -> list[object]:
    """The replies to a transaction that was carried out."""
    return [b"OK", *[QUEUED] * (1 + len(replies)), [1, *replies]]


def test_a_batch_expects_a_reply_to_everything_it_sends() -> None:
    """MULTI, our own command, one for each list, EXEC."""
    assert a_batch(messages(3), queues=2).replies == 1 + 1 + 6 + 1


def test_messages_of_a_list_share_its_command_and_its_fate() -> None:
    """One reply speaks for all of them; those of another list have their own."""
    sent = messages(4)
    here, there = (Route(False, ((Target(b"LPUSH", key),),)) for key in (b"here", b"there"))
    batch = Batch(1)
    for message, route in zip(sent, (here, there, here, there), strict=True):
        batch.add(message, route, b"tag")
    wire = batch.seal([b"mark"], 0.0)
    wrong = ReplyError("WRONGTYPE Operation against a key holding the wrong kind of value")

    verdict = judge(batch, executed(wrong, 2))

    assert wire.count(b"LPUSH") == 2
    assert wire.count(b"*4\r\n$5\r\nLPUSH\r\n") == 2
    assert verdict.taken == [sent[1], sent[3]]
    assert [r.message for r in verdict.refused] == [sent[0], sent[2]]


def test_a_message_is_taken_when_all_its_copies_are() -> None:
    """One bound queue that is no list spoils only its own message."""
    sent = messages(2)
    wrong = ReplyError("WRONGTYPE Operation against a key holding the wrong kind of value")

    verdict = judge(a_batch(sent, queues=2), executed(1, 2, 3, wrong))

    assert verdict.taken == [sent[0]]
    assert [(r.message, r.reason) for r in verdict.refused] == [(sent[1], Reason.REJECTED)]


def test_a_broadcast_may_be_heard_by_nobody_unless_it_is_mandatory() -> None:
    """PUBLISH says how many listened."""
    heard, unheard, optional = messages(3)
    sent = [heard, unheard, optional._replace(mandatory=False)]

    verdict = judge(a_batch(sent, fanout=True), executed(2, 0, 0))

    assert verdict.taken == [sent[0], sent[2]]
    assert [(r.message, r.reason) for r in verdict.refused] == [(sent[1], Reason.UNROUTABLE)]


def test_a_server_without_memory_makes_everybody_wait() -> None:
    """Whether it says so to the commands or only to EXEC."""
    sent = messages(2)
    oom = ReplyError("OOM command not allowed when used memory > 'maxmemory'.")
    late = ReplyError("EXECABORT Transaction discarded because of: OOM command not allowed")

    for replies in ([b"OK", oom, oom, oom, ABORTED], [b"OK", QUEUED, QUEUED, QUEUED, late]):
        verdict = judge(a_batch(sent), replies)

        assert verdict.again == sent
        assert verdict.pause is not None
        assert (verdict.taken, verdict.refused, verdict.lost) == ([], [], None)


def test_the_wrong_server_is_a_lost_one() -> None:
    """A replica, a server that loads, one that asks who we are: no message is poison."""
    for words in ("READONLY You can't write", "LOADING dataset", "NOAUTH Authentication required"):
        error = ReplyError(words)

        verdict = judge(a_batch(messages(1)), [b"OK", error, error, ABORTED])

        assert verdict.lost is not None
        assert not verdict.lost.poison


def test_without_its_multi_a_batch_may_have_happened() -> None:
    """So it is not simply sent again."""
    error = ReplyError("NOPERM this user has no permissions to run the 'multi' command")

    verdict = judge(a_batch(messages(1)), [error, 1, 1, error])

    assert verdict.lost is not None
    assert verdict.again == []


def test_a_forbidden_message_does_not_hold_up_its_neighbours() -> None:
    """They are certainly not in, and are to be sent without it."""
    sent = messages(3)
    error = ReplyError("NOPERM No permissions to access a key")

    verdict = judge(a_batch(sent), [b"OK", QUEUED, QUEUED, error, QUEUED, ABORTED])

    assert verdict.again == [sent[0], sent[2]]
    assert [(r.message, r.reason) for r in verdict.refused] == [(sent[1], Reason.FORBIDDEN)]

"""The 52 faults: what each is, how a test brings it about, and what is expected of it.

Expected of all of them: nothing lost, nothing sent that was not committed, no attempt charged to a
healthy message, duplicates within the window of each fault. What stands here is beyond that.
"""

from dataclasses import dataclass
from typing import Final


@dataclass(frozen=True, slots=True)
class Fault:
    """A row of the table."""

    number: int
    name: str
    injected: str
    expected: str
    #: Test files that try it beside those that record figures.
    elsewhere: tuple[str, ...] = ()


MATRIX: Final = (
    Fault(
        1,
        "Relay killed after a claim",
        "crash point, SIGKILL",
        "sent when the claim has run out; of that claim no duplicate",
    ),
    Fault(
        2,
        "Relay killed before a confirm",
        "proxy holds confirms, SIGKILL",
        "at most a window twice",
    ),
    Fault(3, "Relay killed before the mark", "crash point, SIGKILL", "at most a window twice"),
    Fault(
        4,
        "Relay killed amid the mark",
        "proxy holds the reply, SIGKILL; crash point",
        "all of a mark holds, or nothing",
    ),
    Fault(
        5,
        "SIGTERM",
        "signal in mid-drain; with broker or database silent",
        "no claim left behind, no duplicate; exit within the grace period",
    ),
    Fault(
        6,
        "Out of memory",
        "address space limited, bodies of 10 MB",
        "dies and is replaced; bodies in flight are bounded",
    ),
    Fault(7, "Two relays", "two processes, 10,000 rows", "no duplicate"),
    Fault(
        8,
        "Paused beyond its claims",
        "SIGSTOP, another relay sends, SIGCONT",
        "its failures no longer count, its confirms do",
    ),
    Fault(
        9, "Broker killed", "SIGKILL, start; 20 times in one drain", "what was confirmed is there"
    ),
    Fault(10, "Broker frozen", "SIGSTOP", "given up at the confirm's deadline; not ready, alive"),
    Fault(
        11,
        "Memory or disk alarm",
        "limits moved inside the node",
        "claiming stops; nothing overdue, no duplicate",
    ),
    Fault(
        12,
        "Refused, or its name gone",
        "proxy stops listening; unknown host",
        "a line in the log, not one for each attempt",
    ),
    Fault(13, "Half-open", "proxy drops both ways", "found out by the deadline"),
    Fault(14, "Slow, sliced", "1-byte slices; 10 kB/s", "the connection is kept"),
    Fault(
        15, "Reset in mid-frame", "RST after so many bytes", "what was not confirmed is sent again"
    ),
    Fault(16, "Late confirm", "confirms held beyond the deadline", "settles nobody else's message"),
    Fault(
        17,
        "Database session ended",
        "pg_terminate_backend in every phase",
        "goes on in a new session",
    ),
    Fault(18, "Database killed", "immediate stop, start", "recovers by itself"),
    Fault(
        19,
        "Database fail-over",
        "standby promoted that lacks the last of it",
        "lost is only what the promotion lost",
        (
            "tests/faults/test_failover.py",
            "tests/faults/test_fence.py",
            "tests/faults/test_patroni.py",
        ),
    ),
    Fault(20, "Lock held", "LOCK TABLE beyond the statement's deadline", "tried again"),
    Fault(
        21,
        "Database disk full",
        "tablespace on a small tmpfs",
        "producers get an error, the relay waits",
    ),
    Fault(
        22,
        "Database read-only",
        "default_transaction_read_only",
        "nothing is published: the claim comes first",
    ),
    Fault(
        23,
        "Database frozen",
        "SIGSTOP of a backend; of all",
        "given up by the client's deadline; not ready, alive",
    ),
    Fault(
        24,
        "Deadlock, 40001",
        "rows locked in the opposite order; SERIALIZABLE by default",
        "tried again; its sessions ask for READ COMMITTED themselves",
    ),
    Fault(
        25,
        "COMMIT of unknown outcome",
        "waits for a standby, is terminated",
        "message and data share one fate",
    ),
    Fault(26, "Producer killed before COMMIT", "SIGKILL", "no row"),
    Fault(
        27,
        "Rollback, savepoints, nested",
        "psycopg, SQLAlchemy, Django",
        "only the scopes that survive send",
    ),
    Fault(
        28, "Early id, late commit", "a transaction held open while later ids commit", "not skipped"
    ),
    Fault(
        29,
        "Long transaction",
        "REPEATABLE READ held open for 6,000 rows",
        "shown; claims read few entries beside their own",
    ),
    Fault(
        30,
        "Queue deleted",
        "in mid-traffic; where nobody may declare it",
        "returned, declared anew or waited for",
    ),
    Fault(
        31,
        "Exchange deleted",
        "in mid-traffic",
        "404 is the fault of the messages to it, their neighbours go free",
    ),
    Fault(
        32, "Body over the broker's limit", "limit lowered", "406: that message is dead, no other"
    ),
    Fault(33, "Nack", "x-max-length, reject-publish", "waits for room, charged with nothing"),
    Fault(
        34,
        "Silent drop",
        "x-max-length, drop-head",
        "unknowable after the confirm: `doctor` reports it",
        ("tests/relay/operator/test_doctor_rabbitmq.py",),
    ),
    Fault(
        35,
        "Rows written by hand",
        "NULL, scalars, NaN, 2**70, surrogates, long keys, unknown types",
        "refused by the table or dead with a reason; a thousand others flow",
    ),
    Fault(
        36,
        "10 MB bodies, 200 kB headers",
        "inserted",
        "bodies pass; headers no frame can hold are refused or dead",
    ),
    Fault(
        37,
        "Poison storm",
        "1,000 that kill a channel, before 1,000 good ones",
        "the good ones do not wait for the bad",
    ),
    Fault(
        38,
        "Password changed",
        "at the broker; in the database",
        "not ready; the new one is read without a restart",
    ),
    Fault(
        39,
        "Rights taken away",
        "permissions, user deleted, REVOKE",
        "waited out, charged to no message",
    ),
    Fault(
        40,
        "Schema newer or older",
        "migrated under load",
        "runs, or waits with a sentence that says what to do",
        ("tests/faults/test_upgrade.py", "tests/relay/postgres/test_trouble.py"),
    ),
    Fault(
        41,
        "Clock jumps, time zones",
        "libfaketime, an hour either way, relay and server; session time zone",
        "claims by the database's clock, waits by the monotonic one",
    ),
    Fault(
        42,
        "Pooler; no LISTEN",
        "pgbouncer in either mode",
        "session mode works, transaction mode is reported by `doctor`",
        ("tests/relay/operator/test_pooling.py",),
    ),
    Fault(
        43,
        "One message at two workers",
        "each published twice, first runs rolled back",
        "one effect",
        ("tests/worker/test_races.py",),
    ),
    Fault(
        44,
        "Worker killed",
        "SIGKILL of child and parent",
        "redelivered, one effect; a deadly message ends among the dead letters",
        ("tests/worker/test_reliability.py",),
    ),
    Fault(
        45,
        "Backup restored",
        "pg_dump under traffic, restored later",
        "sent again with the same ids; new ids collide with none",
    ),
    Fault(
        46,
        "Redis crash, eviction, fail-over",
        "SIGKILL, maxmemory, replica cut off",
        "lost is exactly what is documented",
        ("tests/relay/broker/redis/test_sentinel.py",),
    ),
    Fault(
        47,
        "Connections exhausted",
        "every place taken; virtual host's limit",
        "waited out, recovers alone",
    ),
    Fault(
        48,
        "Cluster loses nodes",
        "SIGKILL of the leader, of the relay's node, of two of three; SIGSTOP; cut off",
        "goes on at another node; without a majority nothing is sent, and nothing charged",
    ),
    Fault(
        49,
        "Relay killed while paused",
        "SIGKILL amid what it sets aside",
        "none of it is sent before it is resumed, all of it after",
        ("tests/relay/loop/test_holding.py",),
    ),
    Fault(
        50,
        "Limit of a rate locked",
        "an open transaction of a client that is frozen, ended later",
        "what is limited waits, all else flows",
        ("tests/relay/loop/test_rate.py",),
    ),
    Fault(
        51,
        "Broker lies about depths",
        "declare-ok rewritten: no messages, or four thousand million",
        "holds up the queue that is called full, and no other",
        ("tests/relay/core/test_depths.py",),
    ),
    Fault(
        52,
        "Database of one of many away",
        "held and refused, of one of the outboxes that a relay serves",
        "the others flow; its own goes on when it is back",
        ("tests/relay/many/test_fleet.py",),
    ),
)

"""What may happen to rows: one that no chore can move, some that another holds, all of them older.

Each fault sees that others are sent meanwhile, and leaves nothing behind but what the ledger knows.
"""

import shutil
import subprocess
from collections.abc import Callable
from datetime import UTC, datetime, timedelta
from time import sleep, time
from typing import Final, LiteralString

import psycopg

from servers import Postgres
from tests.faults.lab import DEADLINE, Lab
from tests.fixtures.waiting import wait_until

LOCKED: Final = 20
#: Enough that some of it is not published yet when it is locked.
ROWS: Final = 300
_SENT_SINCE: Final = "SELECT 1 FROM outbox.receipt WHERE sent_at > to_timestamp(%s) LIMIT 1"
#: No lane takes this key; the insert would have refused it.
_SPOIL: Final[LiteralString] = """
UPDATE outbox.parked SET lane = ''
WHERE id = (SELECT id FROM outbox.message WHERE message_id = %s)
"""
_STATE_DEAD: Final[LiteralString] = "SELECT 1 FROM outbox.dead WHERE message_id = %s"
_UNSENT: Final[LiteralString] = """
SELECT (SELECT count(*) FROM outbox.ready) + (SELECT count(*) FROM outbox.parked)
"""
_LOCK: Final[LiteralString] = "SELECT id FROM outbox.ready LIMIT %s FOR UPDATE SKIP LOCKED"
_STORED: Final[LiteralString] = "SELECT message_id FROM outbox.message"


class RowFaults:
    """How each is made to strike."""

    def __init__(self, lab: Lab, database: Postgres, last: Callable[[], float]) -> None:
        """`last` says for how many seconds the next fault lasts."""
        self._lab, self._database, self._last = lab, database, last
        #: Messages that are sent again, because the state before they were sent was put back.
        self.sent_again = 0
        self.faults: dict[str, Callable[[], None]] = {
            "bad scheduled row": self._spoil,
            "rows locked": self._lock,
            "snapshot restored": self._restore,
        }

    def _spoil(self) -> None:
        """The row is given up, and others are sent before it is and after."""
        due = datetime.now(UTC) + timedelta(hours=1)
        (bad,) = self._lab.commit(1, doomed=True, available_at=due)
        self._lab.run(_SPOIL, bad)
        self._lab.run("UPDATE outbox.parked SET available_at = now() WHERE lane = ''")
        wait_until(lambda: self._lab.run(_STATE_DEAD, bad), DEADLINE, "a row that is given up")

    def _lock(self) -> None:
        """Of what is at work, whichever relay holds it, some is another transaction's."""
        self._lab.to_broker.hold("down")
        self._lab.commit(ROWS)
        with psycopg.connect(self._lab.database) as other:
            wait_until(lambda: other.execute(_LOCK, (LOCKED,)).rowcount, DEADLINE, "rows")
            self._lab.to_broker.heal()
            self._wait_until_others_are_sent()
            sleep(self._last())
            other.rollback()

    def _restore(self) -> None:
        """A copy of the disk as a crash leaves it, put back under relays that go on.

        Confirms are on their way then, for messages whose ids will be given to others.
        """
        server, lab = self._database, self._lab
        data, copy = server.folder / "data", server.folder / "snapshot"
        self._crash()
        subprocess.run(["cp", "--archive", data, copy], check=True)
        server.start()
        [(unsent,)] = lab.run(_UNSENT)
        self.sent_again += unsent
        lab.to_database.heal()
        self._wait_until_others_are_sent()
        sleep(self._last())

        lab.to_broker.hold("down")
        sleep(self._last())
        self._crash()
        shutil.rmtree(data)
        copy.rename(data)
        known = lab.ledger.known()
        server.start()
        forgotten = known - {id_ for (id_,) in lab.run(_STORED)}
        assert forgotten, "the database was not set back"
        lab.ledger.forget(forgotten)
        lab.to_database.heal()
        lab.to_broker.heal()

    def _crash(self) -> None:
        """Nothing reaches the database any more, first of all no relay."""
        self._lab.to_database.refuse()
        self._database.kill()

    def _wait_until_others_are_sent(self) -> None:
        since = time()
        wait_until(lambda: self._lab.run(_SENT_SINCE, since), DEADLINE, "others that are sent")

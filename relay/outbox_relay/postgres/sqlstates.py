"""What an error of the server means to the relay: one table for all SQLSTATEs. Pure.

Classes and codes: "PostgreSQL Error Codes", appendix A of its documentation.
"""

from enum import StrEnum
from typing import Final


class Fault(StrEnum):
    """Whose matter an error is."""

    PASSING = "passing"  # an outage, a lock, a time limit: it passes by itself
    ROW = "row"  # what one row holds: it will fail again, and others will not
    OPERATOR = "operator"  # rights, a tool, a broken disk: a person has to look


#: By the first two characters. What is in neither table is an operator's matter.
CLASSES: Final = {
    "08": Fault.PASSING,  # connection exception
    "21": Fault.ROW,  # cardinality violation
    "22": Fault.ROW,  # data exception: overflow, encoding, a time out of range
    "23": Fault.ROW,  # integrity constraint violation
    "25": Fault.PASSING,  # invalid transaction state: read-only, idle for too long
    "26": Fault.PASSING,  # invalid statement name: a pooler gave us another session
    "40": Fault.PASSING,  # transaction rollback: deadlock, serialization
    "44": Fault.ROW,  # WITH CHECK OPTION violation
    "53": Fault.PASSING,  # insufficient resources: disk, memory, connections
    "54": Fault.ROW,  # program limit exceeded: too large, too deep
    "57": Fault.PASSING,  # operator intervention: shutdown, cancelled, starting up
    "58": Fault.PASSING,  # system error
    "P0": Fault.ROW,  # raised by a trigger of somebody's
}
#: By the whole code, where its class says otherwise.
CODES: Final = {
    "55P03": Fault.PASSING,  # lock not available
    "55006": Fault.PASSING,  # object in use
}


def fault_of(sqlstate: str) -> Fault:
    """Whose matter it is."""
    return CODES.get(sqlstate) or CLASSES.get(sqlstate[:2], Fault.OPERATOR)

r"""What `outbox_0006` says of every column and function that had no comment: `\d+` and `\df+`."""

from typing import Final

_MESSAGE: Final = {
    "id": "Order of insertion. Not the task id.",
    "message_id": "The Celery task id.",
    "task": "The Celery task name, or the name given to an event.",
    "exchange": "Exchange it is published to; empty is the default exchange.",
    "routing_key": "Routing key; with the default exchange, the name of the queue.",
    "args": "Positional arguments as Celery renders them, at most 200 characters.",
    "kwargs": "Named arguments as Celery renders them, at most 200 characters.",
    "created_at": "When it was inserted, by the clock of this server.",
}
_WORK: Final = {
    "available_at": "Since when, or from when on, it may be published.",
    "attempts": "How often the broker has refused it; outages do not count.",
    "last_error": "Why the broker refused it last.",
}
_PLACE: Final = {
    "id": "The id of the message.",
    "slot": "The partition the message is stored in.",
}

COLUMNS: Final = {
    "pending": {**_MESSAGE, **_WORK},
    "scheduled": {**_MESSAGE, **_WORK, "available_at": "Held until this time (eta or countdown)."},
    "dead": {**_MESSAGE, **_WORK, "available_at": "When it was given up."},
    "sent": {**_MESSAGE, "sent_at": "When the broker confirmed it; after a replay, the last time."},
    "stats": {
        "pending": "How many are to be published; exact to about 75,000, sampled beyond.",
        "scheduled": "How many are held until their time.",
        "dead": "How many were given up.",
        "oldest_pending_age": "For how long the oldest pending message has been due.",
    },
    "ready": {
        **_PLACE,
        "attempts": _WORK["attempts"],
        "last_error": _WORK["last_error"],
        "lane": "The ordering key, of a message that was taken out of its lane.",
    },
    "parked": {
        **_PLACE,
        "state": "scheduled (until its eta), retry (until its next attempt) or dead.",
        "available_at": "When it becomes ready again, or since when it is dead.",
        "attempts": _WORK["attempts"],
        "suspicion": "How often a channel died with this message on it.",
        "last_error": _WORK["last_error"],
        "lane": "The ordering key, if the message has one.",
    },
    "receipt": {
        "sent_at": "When the batch was settled.",
        "span": "From the lowest to the highest id of the batch.",
        "ids": "The ids of the messages that were confirmed.",
    },
    "lane": {**_PLACE, "key": "The ordering key."},
    "dedup": {
        "key": "The dedup_key.",
        "message_id": "Of the last message stored with it.",
        "id": "The id of that message; null until it is inserted.",
        "looked_at": "When it was last looked whether that message is still pending.",
    },
    "lane_news": {"id": "Order of the news.", "key": "The ordering key that there is news of."},
}
FUNCTIONS: Final = {
    "by_index": "Private: its argument, at a price that only an index look-up pays just once.",
    "claim_lanes": "Private: leases the next message of each lane there is news of.",
    "empty_slot": "Private: truncates a partition, and keeps what is not sent.",
    "forget": "Private: with a retention of 0, what was confirmed leaves at once.",
    "forget_dedup": "Private: forgets keys whose message is not pending any more.",
    "joined_lane": "Private: leaves word of the keys of messages that joined a lane.",
    "left_work": "Private: leaves word of the key of a message that has left the work.",
    "make_work": "Private: makes a work row of each message inserted.",
    "rough_count": "Private: counts a small table exactly, and a large one by a sample.",
    "version": "The version of this schema that relays ask for.",
}


def comments(schema: str) -> str:
    """The statements, for a schema given by its quoted name."""
    columns = [
        f"COMMENT ON COLUMN {schema}.{relation}.{name} IS '{text}';"
        for relation, explained in COLUMNS.items()
        for name, text in explained.items()
    ]
    functions = [
        f"COMMENT ON FUNCTION {schema}.{name} IS '{text}';" for name, text in FUNCTIONS.items()
    ]
    return "\n".join(columns + functions)

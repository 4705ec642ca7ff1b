"""structlog, set up once. Events are named facts with fields; no payload is ever among them.

Where a process serves many outboxes, what is about one of them has its name as `outbox`.

| event | level | when |
|---|---|---|
| relay_started, relay_stopped | info | the process begins and ends its work |
| database_lost, database_up | warning, info | once per incident, and every minute that it lasts |
| database_promoted | warning | another server took over: how many messages held are claimed anew |
| standbys_lost, standbys_up | warning, info | OUTBOX_FENCE: messages wait, and every minute |
| broker_lost, broker_up | warning, info | once per incident, and every minute that it lasts |
| broker_filling, broker_has_room | warning, info | Redis: queues are kept short, no longer are |
| broker_memory_unknown | warning | Redis: it does not tell how full it is: why; once |
| broker_blocked, broker_unblocked | warning, info | the broker asks for a pause; the pause ends |
| connection_bypassed | warning | a queue stopped a connection: another one goes on with others |
| declare_refused | warning | a queue exists otherwise, or may not be declared |
| messages_refused | warning | by reason, at most every 10 s: how many, and the first one's id |
| messages_dead | error | at most every 10 s: how many, the first one's id and what was wrong |
| suspects_isolated | warning | the broker closed over a message: how many are suspects |
| doubts_settled | info | Redis, connected again: how many messages in doubt had arrived |
| grace_over | warning | a server was silent until the end of the grace period |
| claim_outlived | warning | a claim was too old to publish after a pause of this process |
| orphans_dropped | warning | work whose message somebody had deleted by hand was forgotten |
| slot_detached | warning | the table of their slot is detached: how many messages are put off |
| doorbell_off | info | nothing can wake this relay, and it polls: why |
| chore_failed | error | promoting, counting or forgetting failed: which, and why; once a minute |
| message_set_apart | error | a row that could not be promoted is dead, so that others can be |
| work_restored | warning | messages that had no work were given it back: how many |
| purged | info | retention forgot sent messages |
| dead_letters_home | warning | the broker had given them up, now they are dead: how many, and why |
| dead_letters_left | warning | not of this outbox, or forgotten: how many were left in the queue |
| dead_letters_unread | warning | broker or database could not be asked; once, while it lasts |
| pauses_changed | info | somebody has paused or resumed something: what is paused now |
| messages_woken | info | what waited for a worker that knows its task is tried: how many |
| workers_unread | warning | which tasks live workers know could not be read: none is held |
| effects_unread | debug | what became of messages could not be asked for |
| depths_unread | warning | how deep queues are could not be asked for; once, while it lasts |
| counts_unread | debug | of many outboxes: a database could not be asked for its counts |
| queues_unread | debug | depth and consumers of the queues could not be asked for |
| watch_failed | error | a fault of ours: what is looked at beside the loop waits for a minute |
| traces_incomplete | warning | no collector took spans: how many, and why; once a minute |
| replays_unknown | debug | of traced messages: whether they were sent before could not be asked |
| outboxes_listed | info | of many outboxes: how many there are, and how many came and went |
| outboxes_unread | warning | file or database could not be read: why; once, while it lasts |
| outbox_apart | warning | one of many cannot be looked at, the others go on: which, and why |
| outbox_back | info | it can be looked at again |
| outbox_failed | error | one of many: what served it ended over an error; once a minute |
| batch | debug | a batch was claimed and published |
"""

import logging
import sys
from typing import Literal

import structlog


def configure(style: Literal["json", "console", "auto"], level: str) -> None:
    """Write events to stderr: one JSON object a line, or text for people, in colour on a terminal.

    `auto` is text for people where stderr is a terminal, and JSON anywhere else.
    """
    if style == "auto":
        style = "console" if sys.stderr.isatty() else "json"
    renderer: structlog.types.Processor = (
        structlog.processors.JSONRenderer()
        if style == "json"
        else structlog.dev.ConsoleRenderer(colors=sys.stderr.isatty())
    )
    structlog.configure(
        processors=[
            structlog.contextvars.merge_contextvars,
            structlog.processors.add_log_level,
            structlog.processors.TimeStamper(fmt="iso", utc=True),
            structlog.processors.format_exc_info,
            renderer,
        ],
        wrapper_class=structlog.make_filtering_bound_logger(getattr(logging, level.upper())),
        logger_factory=structlog.PrintLoggerFactory(sys.stderr),
        cache_logger_on_first_use=False,
    )

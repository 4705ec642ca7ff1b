"""What is waited out, and how long between two attempts to reach a server."""

import threading
from collections.abc import Callable
from typing import Final

from tenacity import (
    RetryCallState,
    Retrying,
    retry_if_exception_type,
    stop_after_delay,
    stop_never,
    stop_when_event_set,
    wait_random_exponential,
)

from outbox_relay.errors import BrokerLost, RelayError, SchemaError, StoreLost

#: The longest pause between two attempts to reach a broker, in seconds.
MAX_RECONNECT_DELAY: Final = 5.0
#: And a database: whoever waits for messages waits for its fail-over, which is over in a moment.
MAX_DATABASE_DELAY: Final = 1.0
#: Full jitter ("Exponential Backoff And Jitter", AWS Architecture Blog), so that a fleet of relays
#: does not come back as one.
_BROKER: Final = wait_random_exponential(multiplier=0.1, max=MAX_RECONNECT_DELAY)
_DATABASE: Final = wait_random_exponential(multiplier=0.1, max=MAX_DATABASE_DELAY)
#: What passes by itself. A schema that was right once and is not now is being migrated.
TRANSIENT: Final = (StoreLost, BrokerLost, SchemaError)


def pause(state: RetryCallState) -> float:
    """Seconds until the next attempt: it depends on which server the last one failed at."""
    error = state.outcome.exception() if state.outcome else None
    return (_BROKER if isinstance(error, BrokerLost) else _DATABASE)(state)


def attempts(
    stopping: threading.Event,
    rest: Callable[[float], None],
    *,
    over: tuple[type[RelayError], ...] = TRANSIENT,
    patience: float | None = None,
    given_up: Callable[[], None] = lambda: None,
) -> Retrying:
    """One attempt after another until one succeeds, or the time is over: then `given_up` is called.

    That is when `stopping` is set, and after `patience` seconds. `rest` waits between two attempts.
    """
    return Retrying(
        wait=pause,
        stop=stop_when_event_set(stopping)
        | (stop_never if patience is None else stop_after_delay(patience)),
        sleep=rest,
        retry=retry_if_exception_type(over),
        retry_error_callback=lambda _: given_up(),
    )

"""What is waited out, and how long between two attempts to reach a server."""

from typing import Final

from tenacity import wait_random_exponential

from outbox_relay.errors import BrokerLost, SchemaError, StoreLost

#: The longest pause between two attempts, in seconds.
MAX_RECONNECT_DELAY: Final = 5.0
#: Full jitter ("Exponential Backoff And Jitter", AWS Architecture Blog), so that a fleet of relays
#: does not come back as one.
RECONNECT: Final = wait_random_exponential(multiplier=0.1, max=MAX_RECONNECT_DELAY)
#: What passes by itself. A schema that was right once and is not now is being migrated.
TRANSIENT: Final = (StoreLost, BrokerLost, SchemaError)

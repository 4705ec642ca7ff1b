"""An order shop: what an application with an outbox and an inbox looks like. Used by the demo.

`orders.py` is the side that sends, `tasks.py` the side that runs: `celery -A shop worker`.
"""

from shop.app import app

__all__ = ["app"]

"""Shows the Celery outbox in a browser, and lets people free what is stuck.

`create_app` makes an ASGI application of it; the command `outbox-console` serves one.
"""

from importlib.metadata import version

from outbox_console.app import Person, create_app

__all__ = ["Person", "create_app"]
__version__ = version("outbox-console")

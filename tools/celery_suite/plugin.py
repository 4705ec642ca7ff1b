"""A pytest plugin: every app that Celery's tests make is an OutboxCelery.

Loaded before anything imports `Celery` by name.
"""

import celery
import celery.app
import celery.app.base

from celery_outbox import OutboxCelery

for module in (celery, celery.app, celery.app.base):
    module.Celery = OutboxCelery  # type: ignore[attr-defined]  # for the tests' own imports

"""The Celery app: the only line that differs from Celery's guide for Django is the class."""

import os

from celery_outbox import OutboxCelery

os.environ.setdefault("DJANGO_SETTINGS_MODULE", "shop.settings")

app = OutboxCelery("shop")
app.config_from_object("django.conf:settings", namespace="CELERY")
app.autodiscover_tasks()

"""The Celery app of that project."""

from celery_inbox import reliable
from celery_outbox import OutboxCelery

app = OutboxCelery("site")
app.config_from_object("django.conf:settings", namespace="CELERY")
app.autodiscover_tasks()
reliable(app)

"""Settings of a project whose workers are processes."""

import os

from tests.fixtures.django import database_settings

DATABASES = {"default": database_settings(os.environ["DATABASE_URL"])}
INSTALLED_APPS = ["celery_outbox.django"]
TASKS = {
    "default": {
        "BACKEND": "celery_outbox.django.tasks.OutboxBackend",
        "QUEUES": ["default", "mail"],
    }
}
CELERY_BROKER_URL = os.environ["BROKER_URL"]
CELERY_RESULT_BACKEND = os.environ["RESULTS_URL"]

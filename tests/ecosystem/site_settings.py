"""Settings of a Django project with the apps that SITE_APPS names."""

import os

from tests.fixtures.django import database_settings

DATABASES = {"default": database_settings(os.environ.get("DATABASE_URL", "dbname=none"))}
INSTALLED_APPS = [
    "django.contrib.auth",
    "django.contrib.contenttypes",
    "celery_outbox.django",
    *os.environ["SITE_APPS"].split(),
]
MIDDLEWARE = os.environ.get("SITE_MIDDLEWARE", "").split()
ROOT_URLCONF = os.environ.get("SITE_URLS", "")
ALLOWED_HOSTS = ["testserver"]
SECRET_KEY = "none"
USE_TZ = True
DEFAULT_AUTO_FIELD = "django.db.models.BigAutoField"
DJANGO_STRUCTLOG_CELERY_ENABLED = "django_structlog" in INSTALLED_APPS
DJANGO_STRUCTLOG_TRUST_UPSTREAM_REQUEST_ID = True
CELERY_BROKER_URL = os.environ.get("BROKER_URL", "redis://127.0.0.1:1/0")
CELERY_RESULT_BACKEND = os.environ.get("SITE_RESULTS")
CELERY_BROKER_CONNECTION_TIMEOUT = 1

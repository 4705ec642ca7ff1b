"""A shop: the Celery app is loaded with Django, as Celery's own guide has it."""

from shop.celery import app as celery_app

__all__ = ["celery_app"]

"""The outbox in Django's admin: add `celery_outbox.django` to INSTALLED_APPS.

Sending needs no app: only the admin and the system checks do.
"""

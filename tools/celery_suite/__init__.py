"""Celery's own integration tests, plain and with the outbox put in between.

They come with Celery's source distribution, are run where it was unpacked, and copied nowhere.
"""

"""A Django project for the time of a test file: in its process, and in those that it starts."""

import os

import django  # type: ignore[import-untyped]  # Django ships no types
from django.core.management import call_command  # type: ignore[import-untyped]  # the same


def set_up(*apps: str, **settings: str) -> None:
    """Make this process Django's, with these apps: before anything asks for its settings."""
    os.environ["DJANGO_SETTINGS_MODULE"] = "tests.ecosystem.site_settings"
    os.environ["SITE_APPS"] = " ".join(apps)
    os.environ.update({f"SITE_{name.upper()}": value for name, value in settings.items()})
    django.setup()


def migrate() -> None:
    """Make the tables of its apps in the test's database."""
    call_command("migrate", verbosity=0)

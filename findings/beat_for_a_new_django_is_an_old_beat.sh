#!/usr/bin/env bash
# Asked for django-celery-beat beside Django 6.1, installers choose a release of 2020 whose schedules fail.
#
# Versions: Django 6.0 and 6.1, django-celery-beat up to 2.9.0, celery 5.7.0; run with Django 5.2.8.
# Expected: an error that says no release supports this Django yet, or a release that works.
# Happens:  2.9.0 asks for Django < 6.1, so the resolver goes back to 2.1.0, the newest release that names
#           no upper bound, and installs it without a word. It starts and migrates; reading the first
#           schedule from the database ends in an AttributeError, as it takes time zones for pytz'.
# Matters:  a routine upgrade of Django exchanges the scheduler that sends through the outbox for one
#           that is years older, and it is noticed when beat runs. Pin it.

. "$(dirname "$0")/lib/finding.sh"
packages uv==0.9.13 Django==5.2.8 django-celery-beat==2.1.0 celery==5.7.0 setuptools==80.9.0

for pair in 6.0=2.9.0 6.1=2.1.0; do
    chosen=$(printf '%s\n' "Django==${pair%=*}" "django-celery-beat<=2.9.0" |
        uv pip compile --quiet --no-header --no-annotate --python-version 3.12 - |
        grep '^django-celery-beat') || not_tried "nothing could be resolved"
    echo "beside Django ${pair%=*}: $chosen"
    [ "$chosen" = "django-celery-beat==${pair#*=}" ]
done

python -W ignore - <<'END'
import django
from celery import Celery
from django.conf import settings
from django.core.management import call_command

settings.configure(
    INSTALLED_APPS=["django.contrib.contenttypes", "django_celery_beat"],
    DATABASES={"default": {"ENGINE": "django.db.backends.sqlite3", "NAME": ":memory:"}},
    DEFAULT_AUTO_FIELD="django.db.models.AutoField",
    USE_TZ=True,
)
django.setup()
call_command("migrate", verbosity=0)

from django_celery_beat.schedulers import DatabaseScheduler

app = Celery("app", broker="memory://")
app.conf.beat_schedule = {"every half minute": {"task": "task", "schedule": 30}}
try:
    DatabaseScheduler(app=app).tick()
except AttributeError as error:
    print(f"django-celery-beat 2.1.0 ticks: AttributeError: {error}")
    assert "localize" in str(error)
else:
    raise AssertionError("it works")
END

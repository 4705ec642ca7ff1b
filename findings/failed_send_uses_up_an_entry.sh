#!/usr/bin/env bash
# An entry of beat whose message could not be sent has run: it comes a whole interval later, or never.
#
# Versions: celery 5.7.0, kombu 5.7.0, django-celery-beat 2.9.0 with Django 5.2.8.
# Expected: beat tries again when the broker is back, or says that the run did not happen.
# Happens:  the scheduler counts the run (last_run_at, total_run_count) before it sends, and keeps the count
#           when the send raises. A daily entry whose minute falls into an outage is a day late, and a
#           one-off entry of django-celery-beat is disabled without having been sent.
# Matters:  an outbox takes the broker out of this, and puts its database in: an outage of that would lose
#           runs instead. Ours takes the count back and tries again.

. "$(dirname "$0")/lib/finding.sh"
packages celery==5.7.0 kombu==5.7.0 django-celery-beat==2.9.0 Django==5.2.8

cd "$folder"
mkdir queues processed
python -W ignore - <<'END'
import logging
import shutil
from datetime import timedelta
from pathlib import Path

import django
from celery import Celery
from celery.beat import Scheduler
from django.conf import settings
from django.core.management import call_command

logging.disable()
settings.configure(
    INSTALLED_APPS=["django.contrib.contenttypes", "django_celery_beat"],
    DATABASES={"default": {"ENGINE": "django.db.backends.sqlite3", "NAME": ":memory:"}},
    DEFAULT_AUTO_FIELD="django.db.models.AutoField",
    USE_TZ=True,
)
django.setup()
call_command("migrate", verbosity=0)

from django_celery_beat.models import IntervalSchedule, PeriodicTask
from django_celery_beat.schedulers import DatabaseScheduler

# A broker that is there while its folder is.
QUEUES = Path("queues")
app = Celery("app", broker="filesystem://")
app.conf.broker_transport_options = {
    "data_folder_in": "queues", "data_folder_out": "queues", "processed_folder": "processed",
    "control_folder": "processed",
}
app.conf.task_publish_retry = False


def outage(scheduler):
    """Tick until nothing is due, with the broker away, and again with the broker back."""
    scheduler.producer
    shutil.rmtree(QUEUES)
    while not scheduler.tick():
        pass
    QUEUES.mkdir()
    while not (pause := scheduler.tick()):
        pass
    return len([*QUEUES.iterdir()]), pause


def daily(scheduler, last_run_at):
    return scheduler.Entry(
        name="daily", task="task", schedule=timedelta(days=1), app=app, last_run_at=last_run_at
    )


scheduler = Scheduler(app)
long_ago = app.now() - timedelta(days=2)
scheduler.schedule["daily"] = daily(scheduler, long_ago)
sent, _ = outage(scheduler)
entry = scheduler.schedule["daily"]
print(f"celery: sent {sent}, total_run_count {entry.total_run_count}, next in {entry.is_due().next:.0f} s")
assert (sent, entry.total_run_count, entry.is_due().is_due) == (0, 1, False)

scheduler = Scheduler(app)  # and where the broker is there
scheduler.schedule["daily"] = daily(scheduler, long_ago)
while not scheduler.tick():
    pass
assert len([*QUEUES.iterdir()]) == 1
shutil.rmtree(QUEUES)
QUEUES.mkdir()

every, _ = IntervalSchedule.objects.get_or_create(every=1, period="days")
PeriodicTask.objects.create(
    name="once", task="task", interval=every, one_off=True, last_run_at=long_ago
)
app.conf.beat_schedule = {}
scheduler = DatabaseScheduler(app=app)
scheduler.schedule.pop("celery.backend_cleanup", None)
sent, _ = outage(scheduler)
scheduler.sync()
once = PeriodicTask.objects.get(name="once")
print(f"django-celery-beat: sent {sent}, total_run_count {once.total_run_count}")
assert (sent, once.total_run_count) == (0, 1)
entry = DatabaseScheduler(app=app).schedule["once"]  # as beat looks at it next
assert not entry.is_due().is_due
once.refresh_from_db()
print(f"and then enabled: {once.enabled}")
assert not once.enabled
END

"""Django's tutorial (polls to vote on) with Celery's "First steps with Django", made safe."""

import pytest

from tests.tutorials.conftest import Project

MODELS = """
from django.db import models


class Question(models.Model):
    question_text = models.CharField(max_length=200)
    pub_date = models.DateTimeField("date published")

    def __str__(self):
        return self.question_text


class Choice(models.Model):
    question = models.ForeignKey(Question, on_delete=models.CASCADE)
    choice_text = models.CharField(max_length=200)
    votes = models.IntegerField(default=0)

    def __str__(self):
        return self.choice_text
"""

VIEWS = """
from django.db.models import F
from django.http import HttpResponse, HttpResponseRedirect
from django.shortcuts import get_object_or_404
from django.urls import reverse

from .models import Choice, Question
from .tasks import tell_author


def results(request, question_id):
    question = get_object_or_404(Question, pk=question_id)
    return HttpResponse("You're looking at the results of question %s." % question.id)


def vote(request, question_id):
    question = get_object_or_404(Question, pk=question_id)
    try:
        selected_choice = question.choice_set.get(pk=request.POST["choice"])
    except (KeyError, Choice.DoesNotExist):
        return HttpResponse("You didn't select a choice.", status=400)
    else:
        selected_choice.votes = F("votes") + 1
        selected_choice.save()
        tell_author.delay(question.id)
        return HttpResponseRedirect(reverse("polls:results", args=(question.id,)))
"""

POLLS_URLS = """
from django.urls import path

from . import views

app_name = "polls"
urlpatterns = [
    path("<int:question_id>/results/", views.results, name="results"),
    path("<int:question_id>/vote/", views.vote, name="vote"),
]
"""

URLS = """
from django.contrib import admin
from django.urls import include, path

urlpatterns = [
    path("polls/", include("polls.urls")),
    path("admin/", admin.site.urls),
]
"""

CELERY = """
import os

from celery import Celery

# Set the default Django settings module for the 'celery' program.
os.environ.setdefault('DJANGO_SETTINGS_MODULE', 'mysite.settings')

app = Celery('mysite')

# Using a string here means the worker doesn't have to serialize
# the configuration object to child processes.
app.config_from_object('django.conf:settings', namespace='CELERY')

# Load task modules from all registered Django apps.
app.autodiscover_tasks()
"""

INIT = """
# This will make sure the app is always imported when
# Django starts so that shared_task will use this app.
from .celery import app as celery_app

__all__ = ('celery_app',)
"""

TASKS = """
from celery import shared_task

from .models import Question


@shared_task
def tell_author(question_id):
    question = Question.objects.get(pk=question_id)
    return sum(choice.votes for choice in question.choice_set.all())
"""

DATABASES = """
import os

DATABASES = {
    "default": {
        "ENGINE": "django.db.backends.postgresql",
        "NAME": os.environ["PGDATABASE"],
        "USER": os.environ["PGUSER"],
        "PASSWORD": os.environ["PGPASSWORD"],
        "HOST": os.environ["PGHOST"],
        "PORT": os.environ["PGPORT"],
    }
}
CELERY_BROKER_URL = os.environ["BROKER_URL"]
"""

VOTE = """
import os
os.environ["DJANGO_SETTINGS_MODULE"] = "mysite.settings"
import django
django.setup()
from django.test import Client
from django.utils import timezone
from polls.models import Question

question = Question.objects.create(question_text="What's new?", pub_date=timezone.now())
choice = question.choice_set.create(choice_text="Not much")
browser = Client(SERVER_NAME="localhost")
for _ in range(2):
    assert browser.post(f"/polls/{question.id}/vote/", {"choice": choice.id}).status_code == 302
assert browser.post(f"/polls/{question.id}/vote/").status_code == 400
choice.refresh_from_db()
assert choice.votes == 2
"""


@pytest.mark.parametrize("project", ["django"], indirect=True)
def test_the_polls_are_safe(project: Project) -> None:
    """Votes are counted while the broker is down; their tasks run when it is there."""
    project.run("-m", "django", "startproject", "mysite", ".")
    project.run("manage.py", "startapp", "polls")
    project.write("polls/models.py", MODELS)
    project.write("polls/views.py", VIEWS)
    project.write("polls/urls.py", POLLS_URLS)
    project.write("polls/tasks.py", TASKS)
    project.write("mysite/urls.py", URLS)
    project.write("mysite/celery.py", CELERY)
    project.write("mysite/__init__.py", INIT)
    settings = (project.folder / "mysite/settings.py").read_text()
    project.write("mysite/settings.py", settings + DATABASES)
    project.change(
        "mysite/settings.py",
        "INSTALLED_APPS = [\n",
        'INSTALLED_APPS = [\n    "polls.apps.PollsConfig",\n',
    )
    make_safe(project)
    project.run("manage.py", "makemigrations", "polls")
    project.run("manage.py", "migrate")

    worker = project.proves_safe(VOTE, tasks=2, app="mysite")

    assert "Task polls.tasks.tell_author" in worker.output()


def make_safe(project: Project) -> None:
    """What docs/how-to/django.md says."""
    celery = "mysite/celery.py"
    imported = "from celery_outbox import OutboxCelery"
    project.change(celery, "from celery import Celery", imported, by_the_page=imported)
    project.change(
        celery, "app = Celery(", "app = OutboxCelery(", by_the_page="app = OutboxCelery("
    )
    apps = ['    "outbox_migrations.django",', '    "celery_outbox.django",']
    for app in apps:
        project.change(
            "mysite/settings.py",
            '    "polls.apps.PollsConfig",\n',
            f'    "polls.apps.PollsConfig",\n{app}\n',
            by_the_page=app,
        )

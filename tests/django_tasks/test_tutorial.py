"""Django's tutorial (polls to vote on) with nothing but `django.tasks`, as our page says."""

import django  # type: ignore[import-untyped]  # Django ships no types
import pytest

from tests.tutorials.conftest import Project
from tests.tutorials.conftest import project as project
from tests.tutorials.conftest import start_worker as start_worker
from tests.tutorials.test_django import DATABASES, INIT, MODELS, POLLS_URLS, URLS

CELERY = """
import os

from celery_outbox import OutboxCelery

os.environ.setdefault("DJANGO_SETTINGS_MODULE", "mysite.settings")

app = OutboxCelery("mysite")
app.config_from_object("django.conf:settings", namespace="CELERY")
app.autodiscover_tasks()
"""

VIEWS = """
from django.db import transaction
from django.db.models import F
from django.http import HttpResponse, HttpResponseRedirect
from django.shortcuts import get_object_or_404
from django.urls import reverse

from .models import Choice, Question
from .tasks import count_votes, tell_author


def results(request, question_id):
    question = get_object_or_404(Question, pk=question_id)
    return HttpResponse("You're looking at the results of question %s." % question.id)


def vote(request, question_id):
    question = get_object_or_404(Question, pk=question_id)
    with transaction.atomic():
        tell_author.using(queue_name="mail", priority=10).enqueue(question.id)
        count_votes.enqueue(question.id)
        try:
            selected_choice = question.choice_set.get(pk=request.POST["choice"])
        except (KeyError, Choice.DoesNotExist):
            transaction.set_rollback(True)
            return HttpResponse("You didn't select a choice.", status=400)
        selected_choice.votes = F("votes") + 1
        selected_choice.save()
    return HttpResponseRedirect(reverse("polls:results", args=(question.id,)))
"""

TASKS = """
from django.tasks import task

from .models import Question


@task
def count_votes(question_id):
    question = Question.objects.get(pk=question_id)
    return sum(choice.votes for choice in question.choice_set.all())


@task(takes_context=True)
async def tell_author(context, question_id):
    question = await Question.objects.aget(pk=question_id)
    return [question.question_text, context.attempt]
"""

BACKEND = '"BACKEND": "celery_outbox.django.tasks.OutboxBackend"'
SETTINGS = f"""
TASKS = {{"default": {{{BACKEND}, "QUEUES": ["default", "mail"]}}}}
CELERY_RESULT_BACKEND = f"file://{{BASE_DIR}}/results"
"""

SET_UP = """
import os
os.environ["DJANGO_SETTINGS_MODULE"] = "mysite.settings"
import django
django.setup()
"""

VOTE = """
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

READ = """
from django.db import connection
from django.tasks import task_backends

with connection.cursor() as cursor:
    cursor.execute("SELECT message_id FROM outbox.sent ORDER BY id")
    ids = [each for each, in cursor.fetchall()]
for result in map(task_backends["default"].get_result, ids):
    assert result.status == "SUCCESSFUL", result.errors
    print(result.task.name, result.task.queue_name, result.attempts, result.return_value)
"""


@pytest.mark.parametrize("project", ["django-tasks"], indirect=True)
def test_the_polls_are_safe(project: Project) -> None:
    """Votes count while the broker is down, and their tasks run when it is there; else neither."""
    (project.folder / "results").mkdir()
    project.run("-m", "django", "startproject", "mysite", ".")
    project.run("manage.py", "startapp", "polls")
    project.write("polls/models.py", MODELS)
    project.write("polls/views.py", VIEWS)
    project.write("polls/urls.py", POLLS_URLS)
    project.write("polls/tasks.py", TASKS)
    project.write("mysite/urls.py", URLS)
    project.write("mysite/celery.py", by_the_page(project, CELERY))
    project.write("mysite/__init__.py", by_the_page(project, INIT, lines_from=2))
    settings = (project.folder / "mysite/settings.py").read_text()
    project.write("mysite/settings.py", settings + DATABASES + SETTINGS)
    apps = ['"polls.apps.PollsConfig",', '"outbox_migrations.django",', '"celery_outbox.django",']
    project.change(
        "mysite/settings.py",
        "INSTALLED_APPS = [\n",
        "INSTALLED_APPS = [\n" + "".join(f"    {app}\n" for app in apps),
        by_the_page=BACKEND,
    )
    assert all(app in project.page for app in apps[1:])
    project.run("manage.py", "makemigrations", "polls")
    project.run("manage.py", "migrate")
    assert "no issues" in project.run("manage.py", "check")
    assert project.run("-m", "django", "--version").strip() == django.__version__

    worker = project.proves_safe(SET_UP + VOTE, tasks=4, app="mysite")

    assert "Task polls.tasks.count_votes" in worker.output()
    told = 'tell_author mail 1 ["What\'s new?", 1]'
    counted = "count_votes default 1 2"
    assert project.run("-c", SET_UP + READ).splitlines() == [told, counted, told, counted]


def by_the_page(project: Project, text: str, lines_from: int = 0) -> str:
    """Return a file's text, every line of which stands in our how-to."""
    for line in text.strip().splitlines()[lines_from:]:
        assert line.strip().replace("'", '"') in project.page, line
    return text

"""A shop that logs with structlog: each line has the id of the request, in tasks as well."""

from typing import Any

import structlog
from django.db import connection, transaction  # type: ignore[import-untyped]  # Django has no types
from django.http import HttpResponse  # type: ignore[import-untyped]  # the same
from django.urls import path  # type: ignore[import-untyped]  # the same
from django_structlog.celery.steps import DjangoStructLogInitStep

from tests.ecosystem.site_app import app

app.steps["worker"].add(DjangoStructLogInitStep)


@app.task(name="shop.note")
def note() -> None:
    """Write down which request this is about."""
    request_id = structlog.contextvars.get_contextvars().get("request_id")
    with connection.cursor() as cursor:
        cursor.execute("INSERT INTO effect VALUES (%s)", [request_id])


def place(request: Any) -> HttpResponse:
    """Send a task in a transaction, which rolls back where that is asked for."""
    with transaction.atomic():
        note.delay()
        if "reject" in request.GET:
            transaction.set_rollback(True)
    return HttpResponse()


urlpatterns = [path("orders/", place)]

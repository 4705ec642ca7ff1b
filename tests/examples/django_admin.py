"""A user's session in the admin of the Django example; run by test_django as a process."""

import os

import django  # type: ignore[import-untyped]  # Django ships no types
import pytest
from celery import current_app

from celery_outbox import InvalidSetting

os.environ["DJANGO_SETTINGS_MODULE"] = "shop.settings"
django.setup()

# Imports after Django is set up, as it must be (E402); it ships no types.
from django.apps import apps  # type: ignore[import-untyped]  # noqa: E402
from django.contrib.admin.models import LogEntry  # type: ignore[import-untyped]  # noqa: E402
from django.contrib.auth.models import (  # type: ignore[import-untyped]  # noqa: E402
    Permission,
    User,
)
from django.test import Client  # type: ignore[import-untyped]  # noqa: E402


def page(client: Client, path: str) -> str:
    """Return a page of the admin."""
    answer = client.get(f"/admin/celery_outbox/{path}")
    assert answer.status_code == 200, (path, answer.status_code)
    return str(answer.content.decode())


def act(client: Client, view: str, action: str, message_id: str, **more: str) -> str:
    """Select a message and run an action on it; the page that comes of it."""
    row = apps.get_model("celery_outbox", view).objects.get(message_id=message_id)
    data = {"action": action, "_selected_action": [row.pk], **more}
    answer = client.post(f"/admin/celery_outbox/{view}/", data, follow=True)
    return str(answer.content.decode())


chief = Client()
chief.force_login(User.objects.create_superuser("chief"))
for view in ("pending", "scheduled", "sent", "dead"):
    page(chief, f"{view}/")
    page(chief, f"{view}/?q=nothing")
    assert chief.get(f"/admin/celery_outbox/{view}/add/").status_code == 403

dead = page(chief, "dead/")
assert "no queue" in dead
assert 'value="retry"' in dead
assert 'value="discard"' in dead
assert "delete_selected" not in dead

reader = User.objects.create_user("reader", is_staff=True)
reader.user_permissions.add(Permission.objects.get(codename="view_dead"))
watching = Client()
watching.force_login(reader)
assert 'value="retry"' not in page(watching, "dead/")
act(watching, "dead", "discard", "d1", confirmed="yes")

# A part of an id is enough to find it, and the page says so.
assert ">d2<" in page(chief, "dead/?q=2")
assert ">d1<" not in page(chief, "dead/?q=2")
assert "Part of a message id" in page(chief, "dead/")
assert "In all: 2 pending, 0 scheduled, 2 dead" in page(chief, "dead/")

assert "Retried 1 of 1 selected." in act(chief, "dead", "retry", "d1")
# To discard asks first, and says what that means.
asked = act(chief, "dead", "discard", "d2")
assert "1 message will be deleted from the outbox for good and never published" in asked
assert "<code>d2</code>" in asked
assert apps.get_model("celery_outbox", "dead").objects.filter(message_id="d2").exists()
assert "Discarded 1 of 1 selected." in act(chief, "dead", "discard", "d2", confirmed="yes")
act(chief, "pending", "discard", "p1", confirmed="yes")
logged = [entry.change_message for entry in LogEntry.objects.order_by("id")]
assert logged == ["Retried in the outbox", *["Discarded in the outbox"] * 2], logged

# It looks where the producer writes: here, to a database that is none.
current_app.conf.outbox_django_alias = "nowhere"
with pytest.raises(InvalidSetting):
    page(chief, "dead/")

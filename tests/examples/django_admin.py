"""A user's session in the admin of the Django example; run by test_django as a process."""

import os
from unittest.mock import patch

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
from django.db import connection  # type: ignore[import-untyped]  # noqa: E402
from django.test import Client  # type: ignore[import-untyped]  # noqa: E402

from celery_outbox.django import managing  # noqa: E402


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
for view in ("pending", "scheduled", "sent", "dead", "expired"):
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
shown = " ".join(page(chief, "dead/").split())
assert '<a href="/admin/celery_outbox/pending/">pending</a> 3 &middot;' in shown
assert "<strong>dead 2</strong>" in shown
assert '<a href="/admin/celery_outbox/expired/">expired</a> 1 &middot;' in shown
assert "/celery_outbox/pending/" not in page(watching, "dead/")
assert "no error, and there is nothing to be done" in page(chief, "expired/")
assert ">e1<" in page(chief, "expired/")
assert 'name="action"' not in page(chief, "expired/")

assert "Retried 1 of 1 selected." in act(chief, "dead", "retry", "d1")
# To discard asks first, and says what that means.
asked = act(chief, "dead", "discard", "d2")
assert "1 message will be deleted from the outbox for good and never published" in asked
assert "<li>1 &times; shop.bill</li>" in asked
assert "<code>d2</code>" in asked
assert apps.get_model("celery_outbox", "dead").objects.filter(message_id="d2").exists()
assert "Discarded 1 of 1 selected." in act(chief, "dead", "discard", "d2", confirmed="yes")
act(chief, "pending", "discard", "p1", confirmed="yes")
# A second publication is asked for as well; what was replayed meanwhile is not again.
asked = act(chief, "sent", "replay", "s1")
assert "1 message will be published again, under the same id" in asked
assert "not idempotent" in asked
assert apps.get_model("celery_outbox", "sent").objects.filter(message_id="s1").exists()
assert "Replayed 1 of 1 selected." in act(chief, "sent", "replay", "s1", confirmed="yes")
assert apps.get_model("celery_outbox", "pending").objects.filter(message_id="s1").exists()
with patch.object(managing, "MAX_SELECTED", 0):
    assert "More than 0 messages are selected: nothing was done" in act(
        chief, "sent", "replay", "s2"
    )
    assert "nothing was done" in act(chief, "sent", "replay", "s2", confirmed="yes")

logged = [entry.change_message for entry in LogEntry.objects.order_by("id")]
assert logged == [
    "Retried in the outbox",
    *["Discarded in the outbox"] * 2,
    "Replayed in the outbox",
], logged

# The outbox's own record names them as well, where the console and the command line look.
with connection.cursor() as cursor:
    cursor.execute("SELECT who, action, cardinality(ids) FROM outbox.action ORDER BY id")
    recorded = cursor.fetchall()
assert recorded == [
    ("chief (Django admin)", "retry", 1),
    ("chief (Django admin)", "discard", 1),
    ("chief (Django admin)", "cancel", 1),
    ("chief (Django admin)", "replay", 1),
], recorded

# It looks where the producer writes: here, to a database that is none.
current_app.conf.outbox_django_alias = "nowhere"
with pytest.raises(InvalidSetting):
    page(chief, "dead/")

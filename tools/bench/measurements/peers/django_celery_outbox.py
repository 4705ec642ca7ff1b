"""django-celery-outbox: rows of Django's, published through Celery by a management command."""

import json
from typing import Final

from bench.load.tasks import ARGUMENTS, NAME
from bench.measurements.peers.peer import Peer

SETTINGS: Final = """
import os
DATABASES = {"default": {"ENGINE": "django.db.backends.postgresql",
    **{part: os.environ["PEER_" + part] for part in ("NAME", "USER", "PASSWORD", "HOST", "PORT")}}}
INSTALLED_APPS = ["django_celery_outbox"]
CELERY_OUTBOX_APP = "peer_celery.app"
SECRET_KEY, USE_TZ = "not-secret", True
"""
#: It declares the queue before it publishes, and so has to know of what kind it is.
CELERY: Final = """
import json, os
from django_celery_outbox import OutboxCelery
from kombu import Queue
app = OutboxCelery("shop", broker=os.environ["PEER_BROKER"])
arguments = json.loads(os.environ["PEER_QUEUE_ARGUMENTS"])
app.conf.task_queues = [Queue(os.environ["PEER_QUEUE"], queue_arguments=arguments)]
app.conf.broker_transport_options = {"confirm_publish": True}
"""
SEND: Final = """
import json, os, sys, django
django.setup()
from django.db import transaction
from peer_celery import app
name, args, kwargs = json.loads(sys.argv[1])
with transaction.atomic():
    app.send_task(name, args, kwargs, queue=os.environ["PEER_QUEUE"])
"""
#: Copies of the one row that it wrote itself.
COPIES: Final = """
DO $$ DECLARE columns text; BEGIN
    SELECT string_agg(quote_ident(column_name), ', ') INTO columns
    FROM information_schema.columns
    WHERE table_name = 'celery_outbox' AND column_name NOT IN ('id', 'task_id');
    EXECUTE format('INSERT INTO celery_outbox (task_id, %1$s)
        SELECT gen_random_uuid()::text, %1$s FROM celery_outbox, generate_series(2, {total})',
        columns);
END $$
"""

DJANGO_CELERY_OUTBOX: Final = Peer(
    name="django-celery-outbox",
    version="0.4.3",
    requirements=("psycopg[binary]",),
    files={"peer_settings.py": SETTINGS, "peer_celery.py": CELERY},
    environment={"DJANGO_SETTINGS_MODULE": "peer_settings"},
    table="celery_outbox",
    create=("-m", "django", "migrate", "--verbosity", "0"),
    store=("-c", SEND, json.dumps([NAME, ARGUMENTS.positional, ARGUMENTS.named])),
    copies=COPIES,
    relay=(
        *("-m", "django", "celery_outbox_relay"),
        *("--batch-size", "200", "--publish-concurrency", "4", "--idle-time", "0.1"),
    ),
)

"""An app of which each release knows other tasks; every task has its effect once.

RELEASE_TASKS names them. They announce themselves, keep what they do not know, and note each run.
"""

import os

from celery import Celery, Task

from celery_inbox import announce, idempotent, reliable

DATABASE = os.environ.get("RELEASE_DATABASE", "host=nowhere")

app = Celery("release", broker=os.environ.get("RELEASE_BROKER", "amqp://"), set_as_current=False)
app.conf.task_time_limit = 60
reliable(app)
announce(app, DATABASE)

for known in os.environ.get("RELEASE_TASKS", "").split(","):

    @app.task(name=known, bind=True)
    @idempotent(DATABASE)
    def run(self: "Task", connection: object) -> None:  # type: ignore[type-arg]
        """Note that it ran."""
        connection.execute(  # type: ignore[attr-defined]
            "INSERT INTO effect (note) VALUES (%s)", [f"{self.name} {self.request.id}"]
        )

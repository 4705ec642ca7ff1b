"""The Celery app of that project, and its tasks."""

from celery_outbox import OutboxCelery

app = OutboxCelery("site")
app.config_from_object("django.conf:settings", namespace="CELERY")


@app.task(name="shop.add")
def add(x: int, y: int) -> int:
    """Add two numbers."""
    return x + y


@app.task(name="shop.total")
def total(numbers: list[int]) -> int:
    """Add what others have added."""
    return sum(numbers)

"""Which features a RabbitMQ uses that a later one will not have."""

from outbox_relay.broker.amqp.check.management import Management, Unavailable
from outbox_relay.core.finding import Finding, warn

#: What to do about those that tasks may have brought about.
REMEDIES = {
    "transient_nonexcl_queues": "make the queues durable, or exclusive to a connection",
    "global_qos": "set worker_detect_quorum_queues, or upgrade Celery",
    "classic_queue_mirroring": "use quorum queues in place of mirrored classic ones",
}


def check(management: Management) -> list[Finding]:
    """Findings on deprecated features in use; none where the broker is too old to tell."""
    try:
        used = management.deprecated_features_used()
    except Unavailable:
        return []
    return [
        warn(
            "deprecated feature",
            f"{name} is in use, which a later RabbitMQ refuses",
            REMEDIES.get(name, f"see RabbitMQ's page on deprecated features, under {name}"),
        )
        for name in used
    ]

"""Private servers for the demo, the tests and the benchmark: loopback only, gone with their parent.

Nothing is installed, no running server of the machine is touched, and no privileges are needed.
"""

from servers.errors import ServerMissing, StartFailed
from servers.postgres import Postgres
from servers.prometheus import Prometheus
from servers.rabbitmq import RabbitMQ
from servers.rabbitmq_cluster import RabbitCluster
from servers.standby import Standby
from servers.valkey import Valkey

__all__ = [
    "Postgres",
    "Prometheus",
    "RabbitCluster",
    "RabbitMQ",
    "ServerMissing",
    "Standby",
    "StartFailed",
    "Valkey",
]

"""What the shop and the tenants send, evenly, until told to stop.

Orders come from the demo's customers. Beside them go errands: messages for the queues that the
play does something to, some for later, and those that nobody wants while `lost` is set.
"""

import random
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager
from threading import Event
from typing import Final, LiteralString

import psycopg
from psycopg import sql

from dashboard_picture.stage import TENANTS
from demo.customers import Customers

#: Between two orders of a customer: a worker on a small machine keeps up.
ORDER_SECONDS: Final = 0.4
ERRAND_SECONDS: Final = 0.5
#: What a tenant's message weighs, so that Valkey notices.
WEIGHT: Final = 1_500

ERRANDS: Final[dict[str, LiteralString]] = {
    "sms": "SELECT outbox.enqueue('shop.tasks.notify', '[\"errand\", \"sms\"]', queue => 'sms')"
    " FROM generate_series(1, 3)",
    "mail": "SELECT outbox.enqueue('shop.tasks.notify', '[\"errand\", \"mail\"]', queue => 'mail')"
    " FROM generate_series(1, 2)",
    "reports": "SELECT outbox.enqueue('shop.tasks.notify', '[\"errand\", \"report\"]',"
    " queue => 'reports') FROM generate_series(1, 2)",
    "stock": "SELECT outbox.enqueue('shop.tasks.notify', '[\"errand\", \"stock\"]',"
    " queue => 'stock') FROM generate_series(1, 2)",
    "soon": "SELECT outbox.enqueue('shop.tasks.notify', '[\"errand\", \"push\"]',"
    " eta => now() + interval '1 minute')",
    "tomorrow": "SELECT outbox.enqueue('shop.tasks.notify', '[\"errand\", \"push\"]',"
    " eta => now() + interval '1 day')",
}
#: Of the next release: no worker that runs knows it.
ENGRAVE: Final = """
SELECT outbox.enqueue('shop.tasks.engrave', '["errand"]', eta => now() + interval '1 day')
"""
#: Leads to a queue that nobody declares, and was never there.
LOST: Final = """
INSERT INTO outbox.message (message_id, task, exchange, routing_key, headers, properties, body,
                            content_type, content_encoding)
VALUES (gen_random_uuid()::text, 'shop.tasks.notify', '', 'couriers',
        '{"lang": "py", "task": "shop.tasks.notify"}', '{"delivery_mode": 2}',
        convert_to('[["errand", "courier"], {}, {}]', 'utf8'), 'application/json', 'utf-8')
"""
TENANT: Final = """
SELECT {schema}.enqueue('tenant.tasks.export', jsonb_build_array(repeat('x', %s)),
                        queue => 'exports')
FROM generate_series(1, %s)
"""


class Load:
    """What is sent; some of it only while the play says so."""

    def __init__(self, shop_url: str, tenants_url: str) -> None:
        self.lost, self.engraved = Event(), Event()
        self._shop_url, self._tenants_url = shop_url, tenants_url
        self._ended = Event()

    @contextmanager
    def running(self) -> Iterator[Customers]:
        """Send for the length of a block; a failure of the errands is raised at its end."""
        with (
            Customers(self._shop_url, ORDER_SECONDS) as customers,
            ThreadPoolExecutor(2) as threads,
        ):
            customers.start()
            running = [threads.submit(self._run_errands), threads.submit(self._serve_tenants)]
            try:
                yield customers
            finally:
                self._ended.set()
            customers.stop()
            for each in running:
                each.result()

    def _run_errands(self) -> None:
        with psycopg.connect(self._shop_url, autocommit=True) as connection:
            while not self._ended.wait(ERRAND_SECONDS):
                for statement in ERRANDS.values():
                    connection.execute(statement)
                if self.lost.is_set():
                    connection.execute(LOST)
                if self.engraved.is_set():
                    connection.execute(ENGRAVE)

    def _serve_tenants(self) -> None:
        chance = random.Random(7)
        with psycopg.connect(self._tenants_url, autocommit=True) as connection:
            while not self._ended.wait(ERRAND_SECONDS):
                for weight, tenant in enumerate(TENANTS, start=1):
                    send = sql.SQL(TENANT).format(schema=sql.Identifier(tenant))
                    connection.execute(send, (WEIGHT, chance.randint(0, 2 * weight)))

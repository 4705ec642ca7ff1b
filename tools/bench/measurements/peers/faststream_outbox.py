"""faststream-outbox: a subscriber of its table whose answer FastStream publishes to RabbitMQ.

It is not for Celery, and the nearest there is in what it does: a table of Postgres' in the
caller's transaction, a lease for each row, a publish with a confirm, a delete. Its messages have
a body of the same size as ours, and no headers of Celery's.
"""

import json
from typing import Final

from bench.load.tasks import ARGUMENTS
from bench.measurements.peers.peer import Peer

APP: Final = """
import asyncio, json, os, sys
from faststream import FastStream
from faststream.rabbit import RabbitBroker, RabbitQueue
from faststream_outbox import OutboxBroker, make_outbox_table
from sqlalchemy import URL, MetaData
from sqlalchemy.ext.asyncio import AsyncSession, create_async_engine

metadata = MetaData()
table = make_outbox_table(metadata, table_name="peer_outbox")
name, user, password, host, port = (
    os.environ["PEER_" + part] for part in ("NAME", "USER", "PASSWORD", "HOST", "PORT"))
engine = create_async_engine(
    URL.create("postgresql+asyncpg", user, password or None, host, int(port), name),
    pool_size=40)
# Without the log line for each message that is its default.
outbox = OutboxBroker(engine, outbox_table=table, logger=None)
rabbit = RabbitBroker(os.environ["PEER_BROKER"], logger=None)
queue = RabbitQueue(os.environ["PEER_QUEUE"], declare=False)

@rabbit.publisher(queue, persist=True)
@outbox.subscriber("shop", max_workers=32, fetch_batch_size=500, min_fetch_interval=0.01,
                   max_fetch_interval=0.1, terminal_flush_batch_size=10)
async def relay(body: list) -> list:
    return body

app = FastStream(outbox, on_startup=[rabbit.connect])

async def create():
    async with engine.begin() as connection:
        await connection.run_sync(metadata.create_all)

async def store(body):
    async with AsyncSession(engine) as session, session.begin():
        await outbox.publish(body, queue="shop", session=session)

if __name__ == "__main__":
    match sys.argv[1:]:
        case []:
            asyncio.run(app.run())
        case ["create"]:
            asyncio.run(create())
        case ["store", body]:
            asyncio.run(store(json.loads(body)))
"""
#: Copies of the one row that it wrote itself.
COPIES: Final = """
INSERT INTO peer_outbox (queue, payload, headers)
SELECT queue, payload, headers FROM peer_outbox, generate_series(2, {total})
"""

FASTSTREAM_OUTBOX: Final = Peer(
    name="faststream-outbox",
    version="0.19.0",
    requirements=("asyncpg", "faststream[rabbit]"),
    files={"peer_faststream.py": APP},
    environment={},
    table="peer_outbox",
    create=("peer_faststream.py", "create"),
    store=("peer_faststream.py", "store", json.dumps([ARGUMENTS.positional, ARGUMENTS.named, {}])),
    copies=COPIES,
    relay=("peer_faststream.py",),
)

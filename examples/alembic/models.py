"""The shop's tables, from which Alembic writes its migrations."""

from sqlalchemy import BigInteger, Column, Identity, MetaData, Table, Text

metadata = MetaData()
orders = Table(
    "orders",
    metadata,
    Column("id", BigInteger, Identity(always=True), primary_key=True),
    Column("item", Text),
)

"""Alembic's environment: one transaction per component, in a version table inside its schema."""

from alembic import context
from sqlalchemy import text

from outbox_migrations.components import Component

component: Component = context.config.attributes["component"]
create_schema = f"CREATE SCHEMA IF NOT EXISTS {component.quoted_schema}"

if context.is_offline_mode():
    context.configure(
        dialect_name="postgresql",
        dialect_opts={"paramstyle": "named"},
        version_table="schema_version",
        version_table_schema=component.schema,
        transactional_ddl=context.config.attributes.get("transactional", True),
    )
    with context.begin_transaction():
        context.execute(create_schema)
        context.run_migrations()
else:
    connection = context.config.attributes["connection"]
    # Two deployments migrating one schema at once take turns; the second finds nothing left to do.
    connection.execute(
        text("SELECT pg_advisory_xact_lock(hashtext('outbox_migrations'), hashtext(:schema))"),
        {"schema": component.schema},
    )
    connection.execute(text(create_schema))
    context.configure(
        connection=connection,
        version_table="schema_version",
        version_table_schema=component.schema,
        transactional_ddl=True,
    )
    with context.begin_transaction():
        context.run_migrations()

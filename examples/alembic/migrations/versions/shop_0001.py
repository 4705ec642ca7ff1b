"""Orders, each of which is invoiced: a trigger sends the task, whoever inserts the order."""

from alembic import op

revision = "shop_0001"
down_revision = None
branch_labels = ("shop",)
depends_on = "outbox_0001"


def upgrade() -> None:
    """Create the table and its trigger."""
    op.execute(
        "CREATE TABLE orders (id bigint PRIMARY KEY GENERATED ALWAYS AS IDENTITY, item text)"
    )
    op.execute(
        """
        CREATE FUNCTION invoice_order() RETURNS trigger LANGUAGE plpgsql AS $$
        BEGIN
            PERFORM outbox.enqueue('shop.send_invoice', jsonb_build_array(NEW.id));
            RETURN NULL;
        END $$
        """
    )
    op.execute(
        "CREATE TRIGGER invoice_order AFTER INSERT ON orders"
        " FOR EACH ROW EXECUTE FUNCTION invoice_order()"
    )


def downgrade() -> None:
    """Drop both."""
    op.execute("DROP TABLE orders")
    op.execute("DROP FUNCTION invoice_order")

"""celery-types: a user's project passes `mypy --strict`, with a remark per option of ours."""

import subprocess
import sys
from pathlib import Path
from textwrap import dedent

PROJECT = {
    "tasks": """
        import psycopg

        from celery_inbox import idempotent
        from celery_outbox import OutboxCelery

        app = OutboxCelery("shop", broker="redis://127.0.0.1/0")


        def connect() -> "psycopg.Connection[tuple[object, ...]]":
            return psycopg.connect("dbname=shop")


        @app.task(name="shop.bill")
        def bill(order_id: int) -> str:
            return str(order_id)


        @app.task(bind=True)
        @idempotent(connect)
        def charge(self: object, conn: "psycopg.Connection[tuple[object, ...]]", n: int) -> None:
            conn.execute("SELECT %s", (n,))
    """,
    "orders": """
        import psycopg
        from celery import chain
        from sqlalchemy.orm import Session

        from tasks import app, bill


        def place(connection: "psycopg.Connection[tuple[object, ...]]") -> str:
            with app.outbox.transaction(connection):
                first = bill.delay(1)
                chain(bill.s(1), bill.si(2)).apply_async()
            app.outbox.cancel(connection, first.id)
            return first.id


        def store(session: Session) -> None:
            with app.outbox.using(session):
                bill.apply_async((1,), countdown=10)
                app.send_task("warehouse.pack", ("tea",))
            bill.apply_async((1,), outbox=session)  # type: ignore[call-arg]
            bill.apply_async((1,), dedup_key="bill-1")  # type: ignore[call-arg]
            bill.apply_async((1,), ordering_key="bill-1")  # type: ignore[call-arg]


        async def many(session: Session) -> list[str]:
            with app.outbox.using(session):
                return list(app.outbox.send_many(bill, [(1,), (2,)]))
    """,
}


def test_a_project_passes_strictly(tmp_path: Path) -> None:
    """Blocks need no remark; a remark that were not needed would be an error as well."""
    for name, text in PROJECT.items():
        (tmp_path / f"{name}.py").write_text(dedent(text))
    ran = subprocess.run(
        [
            sys.executable,
            "-m",
            "mypy",
            "--strict",
            "--follow-imports=silent",
            "orders.py",
            "tasks.py",
        ],
        cwd=tmp_path,
        capture_output=True,
        text=True,
        timeout=110,
        check=False,
    )

    assert (ran.returncode, ran.stderr) == (0, ""), ran.stdout

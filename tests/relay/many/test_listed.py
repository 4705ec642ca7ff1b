"""A fleet in this process, whose list of outboxes and whose secrets change at an awkward moment."""

import socket
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager
from pathlib import Path

from outbox_relay.many.fleet import Fleet
from outbox_relay.many.lines import parse
from outbox_relay.many.observe import Boards
from outbox_relay.many.outbox import Outbox
from tests.fixtures.broker import Broker
from tests.fixtures.waiting import wait_until
from tests.relay.many.tenants import DEADLINE, Tenant
from tests.relay.many.test_lines import base

LANDING = 5.0


@contextmanager
def serving(boards: Boards) -> Iterator[tuple[Fleet, Callable[[], bool]]]:
    """A fleet that serves, and whether it still does; what ends it is raised at the end."""
    fleet = Fleet(base(), boards, LANDING)
    with ThreadPoolExecutor(1) as pool:
        running = pool.submit(fleet.run)
        try:
            yield fleet, running.running
        finally:
            fleet.stop()
            running.result(DEADLINE)


def outbox_of(tenant: Tenant, setting: str) -> Outbox:
    """As a line of the file gives it."""
    (line,) = parse(f"{tenant.url} {tenant.schema} {setting}", base())
    return line.outbox(tenant.schema)


def test_one_that_is_listed_again_before_its_seat_is_empty_is_watched(
    databases: list[list[Tenant]],
) -> None:
    """Nobody watched its database meanwhile: it was not among the others any more."""
    boards = Boards()
    with socket.create_server(("127.0.0.1", 0)) as hanging, serving(boards) as (fleet, serves):
        url = f"amqp://guest:guest@127.0.0.1:{hanging.getsockname()[1]}//"
        outbox = outbox_of(databases[0][0], f"broker_url={url}")
        fleet.serve([outbox])
        hanging.settimeout(DEADLINE)
        to_broker, _ = hanging.accept()  # it has a seat, which waits for its broker
        before = boards.board(outbox.name)
        fleet.serve([])
        fleet.serve([outbox])
        to_broker.close()
        hanging.close()
        wait_until(
            lambda: not serves() or boards.board(outbox.name) is not before,
            DEADLINE,
            "its seat is empty",
        )
        wait_until(
            lambda: not serves() or boards.board(outbox.name)[1].database_up,
            DEADLINE,
            "it is watched",
        )
        assert serves()


def test_a_secret_that_is_being_replaced_ends_nobody(
    databases: list[list[Tenant]], broker: Broker, tmp_path: Path
) -> None:
    """Whose it is waits for it; the others are served meanwhile."""
    waiting, other = databases[0][:2]
    secret = tmp_path / "broker"
    secret.write_text(broker.url)
    outboxes = [
        outbox_of(waiting, f"broker_url_file={secret}"),
        outbox_of(other, f"broker_url={broker.url}"),
    ]
    secret.unlink()
    ids = waiting.commit()
    with serving(Boards()) as (fleet, _):
        fleet.serve(outboxes)
        other.wait_sent(other.commit())
        assert not waiting.sent()
        secret.write_text(broker.url)

        waiting.wait_sent(ids)

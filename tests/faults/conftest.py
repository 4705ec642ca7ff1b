"""Servers that tests may kill, and a lab on each: a test that passes leaves its figures behind.

`@pytest.mark.fault(9)` says which faults of docs/faults.md a test is about.
"""

import tempfile
from collections.abc import Callable, Iterator
from contextlib import AbstractContextManager, ExitStack, contextmanager
from pathlib import Path
from urllib.parse import urlsplit

import pytest

from servers import Postgres, RabbitMQ
from tests.faults import results, takeover
from tests.faults.disk import SmallDisk
from tests.faults.lab import Lab, LabOn, LabWith
from tests.faults.queues import Queue, RabbitQueue, ValkeyQueue
from tests.faults.results import Measured
from tests.fixtures.broker import Broker
from tests.fixtures.postgres import migrated_database
from tests.fixtures.valkey import OwnValkey

Record = Callable[[Measured], None]
_FOLDER = Path(__file__).parent
#: Where the fail-overs of this run begin in their file.
_BEFORE = takeover.length()


def pytest_collection_modifyitems(items: list[pytest.Item]) -> None:
    """`make test` leaves out what is long: all that is here, but for the smoke tests."""
    for item in items:
        if item.path.is_relative_to(_FOLDER) and item.get_closest_marker("smoke") is None:
            item.add_marker("long")


def pytest_terminal_summary(terminalreporter: pytest.TerminalReporter) -> None:
    """How long each kind of fail-over took, where there were any."""
    for line in takeover.tables(takeover.since(_BEFORE)):
        terminalreporter.write_line(line)


@pytest.fixture(autouse=True)
def record(request: pytest.FixtureRequest) -> Iterator[Record]:
    """Note what was measured; it is written down if the test passes."""
    noted: list[Measured] = []
    before = request.session.testsfailed
    yield noted.append
    marker = request.node.get_closest_marker("fault")
    if marker is not None and request.session.testsfailed == before:
        smoke = request.node.get_closest_marker("smoke") is not None
        measured = noted[-1] if noted else None
        results.write(request.node.nodeid, marker.args, measured, smoke=smoke)


@pytest.fixture(scope="session")
def mortal_rabbitmq(
    rabbitmq_root: Path, tmp_path_factory: pytest.TempPathFactory
) -> Iterator[RabbitMQ]:
    """A node that tests kill, freeze and start again."""
    node = RabbitMQ(tmp_path_factory.mktemp("mortal-rabbitmq"), root=rabbitmq_root)
    try:
        yield node.start()
    finally:
        node.discard()


@pytest.fixture(scope="session")
def mortal_postgres() -> Iterator[Postgres]:
    """A server that tests kill, freeze and start again."""
    server = Postgres(Path(tempfile.mkdtemp(prefix="celery-outbox-mortal-")))
    try:
        yield server.start()
    finally:
        server.discard()


@pytest.fixture
def mortal_broker(mortal_rabbitmq: RabbitMQ) -> Iterator[Broker]:
    """A virtual host of the node that may be killed."""
    vhost = mortal_rabbitmq.create_vhost()
    yield Broker(mortal_rabbitmq, vhost)
    mortal_rabbitmq.delete_vhost(vhost)


@pytest.fixture
def rabbit(broker: Broker) -> RabbitQueue:
    """A virtual host of the node that outlives the test."""
    return RabbitQueue(broker)


@pytest.fixture
def lab(database: str, rabbit: RabbitQueue, tmp_path: Path, record: Record) -> Iterator[Lab]:
    """A lab on servers that outlive the test: only the relay and the network may fail."""
    yield from _lab(database, rabbit, tmp_path, record)


@pytest.fixture(params=["rabbitmq", "valkey"])
def queue(request: pytest.FixtureRequest, own_valkey: OwnValkey) -> Queue:
    """A broker of each kind; Valkey writes to its disk before it replies."""
    if request.param == "rabbitmq":
        return RabbitQueue(request.getfixturevalue("broker"))
    return ValkeyQueue(own_valkey({"appendfsync": "always"}))


@pytest.fixture(params=["rabbitmq", "valkey"])
def mortal_queue(request: pytest.FixtureRequest, own_valkey: OwnValkey) -> Queue:
    """The same, whose servers may be killed."""
    if request.param == "rabbitmq":
        return RabbitQueue(request.getfixturevalue("mortal_broker"))
    return ValkeyQueue(own_valkey({"appendfsync": "always"}))


@pytest.fixture
def broker_lab(database: str, queue: Queue, tmp_path: Path, record: Record) -> Iterator[Lab]:
    """A lab for what the network before a broker can do, once for each kind of broker."""
    yield from _lab(database, queue, tmp_path, record)


@pytest.fixture
def mortal_lab(database: str, mortal_queue: Queue, tmp_path: Path, record: Record) -> Iterator[Lab]:
    """A lab for what a broker can do, once for each kind of broker."""
    yield from _lab(database, mortal_queue, tmp_path, record)


@pytest.fixture
def database_lab(
    mortal_postgres: Postgres, broker: Broker, tmp_path: Path, record: Record
) -> Iterator[Lab]:
    """A lab whose database server may be killed."""
    url = migrated_database(mortal_postgres)
    yield from _lab(url, RabbitQueue(broker), tmp_path, record)
    mortal_postgres.drop_database(urlsplit(url).path.removeprefix("/"))


@pytest.fixture
def lab_on(rabbit: RabbitQueue, tmp_path: Path, record: Record) -> Iterator[LabOn]:
    """Make a lab on a database of the test's own: ``lab_on(url)``."""
    with ExitStack() as stack:

        def make(database: str) -> Lab:
            return stack.enter_context(contextmanager(_lab)(database, rabbit, tmp_path, record))

        yield make


@pytest.fixture
def lab_with(database: str, tmp_path: Path, record: Record) -> Iterator[LabWith]:
    """Make a lab with a broker of the test's own: ``lab_with(queue)``."""
    with ExitStack() as stack:

        def make(queue: Queue) -> Lab:
            return stack.enter_context(contextmanager(_lab)(database, queue, tmp_path, record))

        yield make


@pytest.fixture
def soak_lab(
    mortal_postgres: Postgres,
    own_valkey: OwnValkey,
    request: pytest.FixtureRequest,
    tmp_path: Path,
) -> Callable[[int], AbstractContextManager[Lab]]:
    """Make a lab in which all may be killed: on RabbitMQ for an even seed, else on Valkey."""

    @contextmanager
    def make(seed: int) -> Iterator[Lab]:
        def record(measured: Measured) -> None:
            results.write(f"{results.SOAK}{seed}", (), measured, smoke=False)

        url = migrated_database(mortal_postgres)
        if seed % 2:
            server = own_valkey({"appendfsync": "always"})
            yield from _lab(url, ValkeyQueue(server), tmp_path, record)
            server.stop()
        else:
            node = request.getfixturevalue("mortal_rabbitmq")
            broker = Broker(node, node.create_vhost())
            yield from _lab(url, RabbitQueue(broker), tmp_path, record)
            node.delete_vhost(broker.vhost)
        mortal_postgres.drop_database(urlsplit(url).path.removeprefix("/"))

    return make


@pytest.fixture
def small_disk(postgres: Postgres, tmp_path: Path) -> Iterator[SmallDisk]:
    """A file system of a few megabytes; skips where it may not be mounted."""
    folder = Path(tempfile.mkdtemp(prefix="celery-outbox-disk-"))
    try:
        disk = SmallDisk(folder, postgres)
    except PermissionError:
        pytest.skip("mounting a small file system takes root")
    yield disk
    disk.discard()


def _lab(database: str, queue: Queue, folder: Path, record: Record) -> Iterator[Lab]:
    lab = Lab(database, queue, folder, record)
    try:
        yield lab
    finally:
        lab.close()

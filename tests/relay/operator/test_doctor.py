"""`doctor` as a whole, and on the backlog: is it flowing, and what was given up."""

from tests.fixtures.broker import Broker
from tests.fixtures.programs import RelayFactory
from tests.fixtures.waiting import wait_until
from tests.relay.conftest import Doctor, Outbox, finding


def test_a_healthy_stack_has_no_problem(
    doctor: Doctor, outbox: Outbox, relay: RelayFactory, database: str, broker: Broker
) -> None:
    """Exit 0, and each check says what it found."""
    broker.declare("celery")
    outbox.add_sent()
    relay(OUTBOX_DATABASE_URL=database, OUTBOX_BROKER_URL=broker.url)

    answer = doctor()

    assert answer.code == 0, answer.out
    assert "no problem found" in answer.out
    assert "1 connected" in finding(answer, "ok", "relays")
    assert "every message finds a safe queue" in finding(answer, "ok", "route")


def test_for_programs_each_finding_is_an_object(doctor: Doctor, outbox: Outbox) -> None:
    """name, level, text and remedy."""
    outbox.add_dead()

    answer = doctor("--json")

    assert answer.code == 1
    assert all(set(each) == {"name", "level", "text", "remedy"} for each in answer.json())
    assert {"ok", "warn", "problem"} == {each["level"] for each in answer.json()}
    assert all(each["remedy"] for each in answer.json() if each["level"] != "ok")


def test_a_stopped_relay(doctor: Doctor, outbox: Outbox) -> None:
    """Messages wait and nobody is there."""
    outbox.add()

    answer = doctor()

    assert answer.code == 1
    text = finding(answer, "problem", "relays")
    assert "no relay is connected, and 1 message(s) wait" in text
    assert "outbox-relay run" in text


def test_a_poison_row(
    doctor: Doctor, outbox: Outbox, relay: RelayFactory, database: str, broker: Broker
) -> None:
    """A row no broker could take is dead, with its reason, an example and the way out."""
    broker.declare("celery")
    outbox.connection.execute(
        """
        INSERT INTO outbox.message (message_id, task, routing_key, properties, body, content_type,
                                    content_encoding)
        VALUES ('poison', 'shop.bill', 'celery', '{"delivery_mode": 7}', 'x', 'text/plain', 'utf-8')
        """
    )
    relay(OUTBOX_DATABASE_URL=database, OUTBOX_BROKER_URL=broker.url)
    wait_until(lambda: outbox.ids("dead"), 20, "the poison row's death")

    answer = doctor()

    assert answer.code == 1
    text = finding(answer, "problem", "dead letters")
    assert "1 x shop.bill" in text
    assert "delivery_mode" in text
    assert "poison" in text
    assert "outbox-relay retry" in text


def test_without_a_database_nothing_is_said_of_routes(doctor: Doctor) -> None:
    """That nothing is pending cannot be known; the broker is examined all the same."""
    answer = doctor(OUTBOX_DATABASE_URL="postgresql://127.0.0.1:1/shop")

    assert "ok       route" not in answer.out
    assert "not checked" in finding(answer, "warn", "route")
    assert "RabbitMQ at" in finding(answer, "ok", "broker")


def test_the_schema_is_named_as_the_migrations_name_it(doctor: Doctor) -> None:
    """Two programs, one version."""
    assert "(outbox_0001, as outbox-migrate status has it)" in finding(doctor(), "ok", "schema")


def test_a_refusal_is_told_in_the_brokers_words(doctor: Doctor, broker: Broker) -> None:
    """Without the numbers of a method that py-amqp puts before them."""
    answer = doctor(OUTBOX_BROKER_URL=broker.url.replace(broker.node.password, "wrong"))

    assert "403 ACCESS_REFUSED" in finding(answer, "problem", "broker")
    assert "(0, 0)" not in answer.out

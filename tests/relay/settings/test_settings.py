"""A setting that cannot be right stops the start, and the message names the variable to correct."""

from pathlib import Path

import pytest

from outbox_relay.configuration import from_environment
from outbox_relay.errors import SettingsError
from outbox_relay.settings import Settings

DATABASE = "postgresql://relay:hunter2@db:5432/shop"
BROKER = "amqp://relay:hunter2@mq:5672/shop"


def read(**variables: str) -> Settings:
    """The settings of an environment that is complete, and differs in these variables."""
    given = {"OUTBOX_DATABASE_URL": DATABASE, "OUTBOX_BROKER_URL": BROKER, **variables}
    return from_environment({name: value for name, value in given.items() if value})


def test_the_defaults_are_the_contracts() -> None:
    """An environment of two URLs is enough, and means what the documentation says."""
    settings = read()

    assert settings.database_url.read() == DATABASE
    assert settings.broker_url.read() == BROKER
    assert (settings.schema, settings.declare) == ("outbox", "missing")
    assert settings.max_attempts == 10
    assert settings.retention == 7 * 24 * 3600
    assert settings.http_address == ("127.0.0.1", 9464)
    assert (settings.log_format, settings.log_level) == ("auto", "info")


def test_every_variable_is_read() -> None:
    """No setting is a dead letter."""
    settings = read(
        OUTBOX_SCHEMA="shop_outbox",
        OUTBOX_DECLARE="never",
        OUTBOX_BATCH_SIZE="7",
        OUTBOX_WINDOW="70",
        OUTBOX_MAX_ATTEMPTS="2",
        OUTBOX_RETRY_DELAY="250ms",
        OUTBOX_RETENTION="36h",
        OUTBOX_HTTP_ADDRESS="0.0.0.0:80",
        OUTBOX_LOG_FORMAT="console",
        OUTBOX_LOG_LEVEL="DEBUG",
        OUTBOX_GRACE_PERIOD="1m",
        OUTBOX_CONFIRM_TIMEOUT="2",
        OUTBOX_STATEMENT_TIMEOUT="3s",
        OUTBOX_LEASE="4s",
    )

    assert (settings.schema, settings.declare) == ("shop_outbox", "never")
    assert (settings.batch_size, settings.window, settings.max_attempts) == (7, 70, 2)
    assert (settings.retry_delay, settings.retention) == (0.25, 36 * 3600)
    assert settings.http_address == ("0.0.0.0", 80)
    assert (settings.log_format, settings.log_level) == ("console", "debug")
    assert (settings.grace_period, settings.confirm_timeout) == (60, 2)
    assert (settings.statement_timeout, settings.lease) == (3, 4)


def test_blank_means_default() -> None:
    """An empty variable, as compose files make them, is the same as none."""
    assert read(OUTBOX_SCHEMA=" ", OUTBOX_WINDOW="  ") == read()


@pytest.mark.parametrize(
    ("text", "seconds"),
    [
        ("0", 0),
        ("90", 90),
        ("1.5s", 1.5),
        ("500ms", 0.5),
        ("5m", 300),
        ("36h", 129600),
        ("7d", 604800),
        ("2w", 1209600),
    ],
)
def test_durations_have_units(text: str, seconds: float) -> None:
    """Seconds where no unit is given."""
    assert read(OUTBOX_RETENTION=text).retention == pytest.approx(seconds)


@pytest.mark.parametrize(
    ("text", "address"),
    [
        ("off", None),
        (":9464", ("0.0.0.0", 9464)),
        ("[::1]:80", ("::1", 80)),
        ("localhost:0", ("localhost", 0)),
    ],
)
def test_addresses(text: str, address: tuple[str, int] | None) -> None:
    """Host and port, every address, IPv6, or none at all."""
    assert read(OUTBOX_HTTP_ADDRESS=text).http_address == address


BAD: list[tuple[str, str]] = [
    ("OUTBOX_DATABASE_URL", "db:5432/shop"),
    ("OUTBOX_DATABASE_URL", "mysql://db/shop"),
    ("OUTBOX_BROKER_URL", "mq:5672"),
    ("OUTBOX_BROKER_URL", "http://mq:15672"),
    ("OUTBOX_BROKER_URL", "amqp://"),
    ("OUTBOX_BROKER_URL", "amqp://mq:port/"),
    ("OUTBOX_BROKER_URL", "amqp://mq:99999/"),
    ("OUTBOX_BROKER_URL", f"{BROKER};kafka://other"),
    ("OUTBOX_BROKER_URL", f"{BROKER};"),
    ("OUTBOX_BROKER_URL", "amqp://relay:hunter2"),
    ("OUTBOX_BROKER_URL", "amqp://relay:a;hunter2@mq"),
    ("OUTBOX_BROKER_URL", "amqp://relay:[hunter2@mq"),
    ("OUTBOX_BROKER_URL", "amqp://relay:hunter2\u2100@mq"),
    *(("OUTBOX_BROKER_URL", f"amqp://relay:hunter2{c}x@mq/shop") for c in "/?#"),
    *(("OUTBOX_BROKER_URL", f"redis://:4711{c}hunter2@cache/0") for c in "/?#"),
    ("OUTBOX_DATABASE_URL", "postgresql://"),
    ("OUTBOX_DATABASE_URL", "host="),
    ("OUTBOX_DATABASE_URL", "postgresql://relay:hunter2"),
    ("OUTBOX_DATABASE_URL", "postgresql://relay:hunter2/x@db/shop"),
    ("OUTBOX_DATABASE_URL", "postgresql://relay:4711/hunter2@db/shop"),
    ("OUTBOX_DATABASE_URL", "postgresql://relay:hunter2%zz@db/shop"),
    ("OUTBOX_DATABASE_URL", "postgresql://relay:hunter2@hunter2@db/shop"),
    ("OUTBOX_DATABASE_URL", "host=db password=pass hunter2"),
    ("OUTBOX_SCHEMA", 'outbox"; DROP TABLE x; --'),
    ("OUTBOX_SCHEMA", "Outbox"),
    ("OUTBOX_SCHEMA", "1outbox"),
    ("OUTBOX_SCHEMA", "out-box"),
    ("OUTBOX_SCHEMA", "ütbox"),
    ("OUTBOX_SCHEMA", "o" * 64),
    ("OUTBOX_DECLARE", "always"),
    ("OUTBOX_DECLARE", "Missing"),
    ("OUTBOX_BATCH_SIZE", "0"),
    ("OUTBOX_BATCH_SIZE", "-5"),
    ("OUTBOX_BATCH_SIZE", "many"),
    ("OUTBOX_BATCH_SIZE", "10001"),
    ("OUTBOX_BATCH_SIZE", "1.5"),
    ("OUTBOX_BATCH_SIZE", "1e3"),
    ("OUTBOX_BATCH_SIZE", "٣"),
    ("OUTBOX_BATCH_SIZE", "9" * 5000),
    ("OUTBOX_WINDOW", "0"),
    ("OUTBOX_WINDOW", "100001"),
    ("OUTBOX_MAX_ATTEMPTS", "0"),
    ("OUTBOX_MAX_ATTEMPTS", "32768"),
    ("OUTBOX_RETRY_DELAY", "-1s"),
    ("OUTBOX_RETRY_DELAY", "soon"),
    ("OUTBOX_RETENTION", "7 days"),
    ("OUTBOX_RETENTION", "7D"),
    ("OUTBOX_RETENTION", "inf"),
    ("OUTBOX_RETENTION", "1y"),
    ("OUTBOX_RETENTION", "9" * 400),
    ("OUTBOX_RETENTION", "100000000d"),
    ("OUTBOX_HTTP_ADDRESS", "9464"),
    ("OUTBOX_HTTP_ADDRESS", "localhost:"),
    ("OUTBOX_HTTP_ADDRESS", "localhost:http"),
    ("OUTBOX_HTTP_ADDRESS", "localhost:65536"),
    ("OUTBOX_HTTP_ADDRESS", "localhost:²"),
    ("OUTBOX_LOG_FORMAT", "xml"),
    ("OUTBOX_LOG_LEVEL", "loud"),
    ("OUTBOX_GRACE_PERIOD", "forever"),
    ("OUTBOX_CONFIRM_TIMEOUT", "0"),
    ("OUTBOX_STATEMENT_TIMEOUT", "100ms"),
    ("OUTBOX_LEASE", "0s"),
]


@pytest.mark.parametrize(("name", "value"), BAD, ids=[f"{n}={v[:30]}" for n, v in BAD])
def test_a_bad_value_names_its_variable(name: str, value: str) -> None:
    """One sentence that says which variable is wrong."""
    with pytest.raises(SettingsError) as refused:
        read(**{name: value})

    assert name in str(refused.value)
    assert "hunter2" not in str(refused.value)


@pytest.mark.parametrize("name", ["OUTBOX_DATABASE_URL", "OUTBOX_BROKER_URL"])
def test_a_missing_url_names_its_variable(name: str) -> None:
    """There is no default for where the data is."""
    with pytest.raises(SettingsError, match=f"{name} is not set"):
        read(**{name: ""})


def test_looking_needs_no_broker() -> None:
    """A command that only reads the database asks for no broker."""
    settings = from_environment({"OUTBOX_DATABASE_URL": DATABASE}, need_broker=False)

    assert settings.broker_url.read() == ""


@pytest.mark.parametrize("name", ["OUTBOX_BATCHSIZE", "OUTBOX_RETENTIONS", "OUTBOX_"])
def test_an_unknown_variable_is_named(name: str) -> None:
    """A misspelt setting is an error, not a silence."""
    with pytest.raises(SettingsError, match=name):
        read(**{name: "5"})


def test_other_programs_variables_are_no_concern() -> None:
    """Only names with our prefix are looked at."""
    assert read(PATH="/bin", OUT="1") == read()


@pytest.mark.parametrize(
    "url",
    [
        "amqp://mq",
        "amqps://user:p%40ss@mq:5671/vhost",
        "amqp://user:pass@word@mq:5672//",
        "amqp://[::1]:5672/",
        "amqp://[::1]/",
        "amqp://mq:5672?heartbeat=5",
        f"{BROKER}; amqp://other:5673/shop",
        "redis://:secret@cache:6379/0",
        "redis://:a%2Fb%3Fc%23d%40e@cache:6379/0",
    ],
)
def test_urls_kombu_reads_are_accepted(url: str) -> None:
    """Every spelling of an address that Celery takes."""
    assert read(OUTBOX_BROKER_URL=url).broker_url.read() == url


@pytest.mark.parametrize(
    "url",
    [
        "postgresql:///shop",
        "postgresql://a,b:5433,[::1]:5434/shop?target_session_attrs=read-write",
        "postgresql://relay%40server:p%2Fw@db/shop",
        "postgresql://relay:what?#@db/shop",
        "postgresql://db/shop?user=relay@server",
        "host=db dbname=shop password='with blanks'",
        "host = db password = it\\'s user='o\\'brien' password=abc=",
        "service=shop",
    ],
)
def test_urls_libpq_reads_are_accepted(url: str) -> None:
    """Whatever it takes literally need not be encoded."""
    assert read(OUTBOX_DATABASE_URL=url).database_url.read() == url


def test_a_password_to_be_encoded_is_told_so() -> None:
    """With the characters, and without the password."""
    with pytest.raises(SettingsError, match="OUTBOX_BROKER_URL is malformed: percent-encode / "):
        read(OUTBOX_BROKER_URL="amqp://relay:hunter2/@mq/shop")


def test_a_secret_may_live_in_a_file(tmp_path: Path) -> None:
    """NAME_FILE is read anew each time: a rotated password needs no restart."""
    file = tmp_path / "broker"
    file.write_text(f"{BROKER}\n")
    settings = read(OUTBOX_BROKER_URL="", OUTBOX_BROKER_URL_FILE=str(file))
    assert settings.broker_url.read() == BROKER

    file.write_text("amqp://relay:rotated@mq:5672/shop")

    assert settings.broker_url.read() == "amqp://relay:rotated@mq:5672/shop"


def test_a_secrets_file_that_is_not_there_is_named(tmp_path: Path) -> None:
    """The message names variable and path."""
    path = str(tmp_path / "absent")

    with pytest.raises(SettingsError, match="OUTBOX_BROKER_URL_FILE") as refused:
        read(OUTBOX_BROKER_URL="", OUTBOX_BROKER_URL_FILE=path)

    assert path in str(refused.value)


@pytest.mark.parametrize("content", [b"", b"\xff\xfe", b"not a url hunter2"])
def test_a_secrets_file_with_rubbish_is_named(tmp_path: Path, content: bytes) -> None:
    """Empty, undecodable or no URL: the variable is named, the content is not."""
    file = tmp_path / "broker"
    file.write_bytes(content)

    with pytest.raises(SettingsError, match="OUTBOX_BROKER_URL") as refused:
        read(OUTBOX_BROKER_URL="", OUTBOX_BROKER_URL_FILE=str(file))

    assert "hunter2" not in str(refused.value)


def test_a_secret_and_its_file_contradict_each_other(tmp_path: Path) -> None:
    """Neither wins silently."""
    file = tmp_path / "broker"
    file.write_text(BROKER)

    with pytest.raises(SettingsError, match="OUTBOX_BROKER_URL_FILE are both set"):
        read(OUTBOX_BROKER_URL_FILE=str(file))


def test_a_secret_is_never_printed() -> None:
    """Neither repr nor str of the settings shows a password."""
    settings = read()

    assert "hunter2" not in repr(settings) + str(settings) + repr(settings.broker_url)

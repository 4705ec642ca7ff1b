"""The lines of OUTBOX_DATABASES_FILE: what each means, and how a mistake is told."""

from pathlib import Path

import pytest

from outbox_relay.broker.redis.settings import CONFIRM
from outbox_relay.configuration import from_environment
from outbox_relay.errors import SettingsError
from outbox_relay.many.lines import Line, parse
from outbox_relay.settings import Settings

BROKER = "amqp://relay:hunter2@mq:5672/shop"


def base(**variables: str) -> Settings:
    """The settings of a process that serves many, but for its file."""
    usual = {"OUTBOX_DATABASES_FILE": "/etc/outboxes", "OUTBOX_BROKER_URL": BROKER}
    return from_environment({**usual, **variables})


def one(text: str, **variables: str) -> Line:
    """The only line."""
    (line,) = parse(text, base(**variables))
    return line


def mistake(text: str, **variables: str) -> str:
    """What is told of a file that is wrong."""
    with pytest.raises(SettingsError) as caught:
        parse(text, base(**variables))
    return str(caught.value)


def test_a_url_is_enough() -> None:
    """It is called as its database is, and means the schema `outbox` of it."""
    line = one("postgresql://relay:hunter2@db1:5433/shop\n")

    (schema,) = line.schemas([])
    outbox = line.outbox(schema)
    assert (outbox.name, outbox.settings.schema) == ("shop", "outbox")
    assert outbox.settings.database_url.read() == "postgresql://relay:hunter2@db1:5433/shop"
    assert outbox.settings.broker_url.read() == BROKER
    assert outbox.settings.databases_file is None
    assert line.address == ("db1", "5433", "shop")


def test_what_is_not_on_the_line_is_as_for_the_process() -> None:
    """As if a relay ran for this outbox alone, in the environment of the process."""
    settings = one("postgresql://db/shop window=70", OUTBOX_BATCH_SIZE="7").settings

    assert (settings.window, settings.batch_size) == (70, 7)


def test_every_kind_of_setting_can_be_on_a_line(tmp_path: Path) -> None:
    """The relay's own, a broker's, and secrets as values or in files."""
    secret = tmp_path / "url"
    secret.write_text("postgresql://relay:hunter2@db2/app\n")

    line = one(
        f"database_url_file={secret} tenant_* archive name=eu "
        "broker_url=redis://mq2/0 max_depth=1000 redis_confirm=fsync"
    )

    assert (line.name, line.literal, line.wild) == ("eu", ("archive",), ("tenant_*",))
    assert line.settings.broker_url.read() == "redis://mq2/0"
    assert line.settings.max_depth == 1000
    assert line.settings.of(CONFIRM).fsync
    secret.write_text("postgresql://relay:rotated@db2/app\n")
    assert line.settings.database_url.read() == "postgresql://relay:rotated@db2/app"


def test_patterns_choose_among_the_schemas_there_are() -> None:
    """Those named are served in any case, and each once."""
    line = one("postgresql://db/app archive tenant_* tenant_[12]")

    assert line.schemas(["outbox", "tenant_1", "tenant_2", "other"]) == [
        "archive",
        "tenant_1",
        "tenant_2",
    ]
    assert [line.outbox(schema).name for schema in ("outbox", "tenant_1")] == [
        "app",
        "app/tenant_1",
    ]


def test_an_outbox_is_found_by_its_name() -> None:
    """Without a look at the database, which may be away."""
    line = one("postgresql://db/app tenant_*")

    found = line.named("app/tenant_7")
    assert found
    assert found.settings.schema == "tenant_7"
    assert line.named("app/archive") is None
    assert line.named("app") is None
    assert line.named("other/tenant_7") is None


def test_comments_and_empty_lines_are_nothing() -> None:
    """Also behind a database; a URL may have a # in it where it does not begin a word."""
    text = "# all of them\n\n  \npostgresql://db/shop  # the shop\npostgresql://db/a%23b name=ab\n"

    assert [line.number for line in parse(text, base())] == [4, 5]


def test_a_database_may_be_on_several_lines() -> None:
    """One tenant has a larger window; where both lines name it, the first counts."""
    lines = parse("postgresql://db/app tenant_1 window=9\npostgresql://db/app tenant_*", base())

    assert [line.name for line in lines] == ["app", "app"]


def test_settings_are_the_same_wherever_the_line_is() -> None:
    """Whoever compares readings must not take a line that has moved for another."""
    text = "postgresql://db/shop window=9 broker_url=redis://mq/1\n"

    assert one(text).settings == one(f"# first\n\n{text}").settings


@pytest.mark.parametrize(
    ("text", "told"),
    [
        ("", "names no database"),
        ("# nothing\n", "names no database"),
        ("tenant_*", "line 1: no database"),
        ("postgresql://db/shop\npostgresql:/u:hunter2@db/x", "line 2: word 1 is no URL"),
        ("postgresql://u:hunter2/x@db/shop", "line 1: database_url is malformed: percent-encode"),
        ("amqp://u:hunter2@mq/shop", "line 1: database_url is malformed: give postgresql://"),
        ("postgresql://db/shop Tenant_*", "line 1: word 2 is no URL"),
        ("postgresql://db/shop 1st", "line 1: schema '1st': use lower-case letters"),
        ("postgresql://db/shop window=many", "line 1: window=many: give a whole number"),
        ("postgresql://db/shop window=", "line 1: window is empty"),
        ("postgresql://db/shop windows=5", "line 1: windows is nothing a line can set"),
        ("postgresql://db/shop log_level=debug", "set OUTBOX_LOG_LEVEL"),
        ("postgresql://db/shop schema=tenant_*", "write schemas as words of their own"),
        ("postgresql://db/shop postgresql://db/mail", "database_url is given twice"),
        ("host=db dbname=shop password=hunter2", "database_url_file=PATH"),
        ("postgresql://db/shop database_url_file=/nowhere", "keep one"),
        ("database_url_file=/nowhere", "line 1: database_url_file cannot be read"),
        ("postgresql://db", "line 1: give it a name"),
        ("postgresql://db/shop name=a/b", "line 1: give it a name"),
        ("postgresql://db/shop broker_url=kafka://u:hunter2@mq", "broker_url is malformed"),
        (
            "postgresql://db1/app tenant_*\npostgresql://db2/app tenant_*",
            "line 2: line 1 is another database and is called 'app' as well",
        ),
    ],
)
def test_a_mistake_names_its_line_and_the_way_out(text: str, told: str) -> None:
    """And repeats no URL, which may hold a password."""
    said = mistake(text)

    assert told in said
    assert "hunter2" not in said


def test_many_mistakes_are_told_at_once_and_not_without_end() -> None:
    """Whoever corrects a file wants to see them all, within reason."""
    both = mistake("postgresql://db/a window=x\npostgresql://db/b windows=1")

    assert "line 1: window=x" in both
    assert "line 2: windows" in both
    assert "and 95 more lines" in mistake("postgresql://db/a window=x\n" * 100)


def test_each_needs_a_broker() -> None:
    """From its line, or from the process; commands that ask the database alone need none."""
    text = "postgresql://db/shop"

    assert "no broker: give broker_url=..." in mistake(text, OUTBOX_BROKER_URL="")
    assert parse(text, base(OUTBOX_BROKER_URL=""), need_broker=False)
    assert one(f"{text} broker_url={BROKER}", OUTBOX_BROKER_URL="").settings.broker_url.read()


def test_a_secret_that_is_lost_later_says_whose_it_was(tmp_path: Path) -> None:
    """The connection is made anew long after the file was read."""
    secret = tmp_path / "url"
    secret.write_text("postgresql://db/shop")
    settings = one(f"database_url_file={secret} name=eu").settings
    secret.unlink()

    with pytest.raises(SettingsError, match=r"database_url_file of 'eu' in OUTBOX_DATABASES_FILE"):
        settings.database_url.read()

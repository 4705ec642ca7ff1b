"""How long a host is waited for: as the URL says, each of several for itself, never for ever."""

from contextlib import closing
from pathlib import Path
from time import monotonic
from urllib.parse import urlsplit

import pytest
from psycopg.conninfo import make_conninfo

from outbox_relay.errors import SettingsError, StoreLost
from outbox_relay.many.lines import parse
from outbox_relay.postgres.database import (
    CONNECT_TIMEOUT_SECONDS,
    MAX_CONNECT_SECONDS,
    MIN_CONNECT_SECONDS,
    connect,
    current_url,
)
from tests.fixtures.frozen import Frozen
from tests.relay.many.test_lines import base


def seconds(url: str) -> int:
    """What each host of a session was given."""
    with closing(connect(url, "test", 5.0)) as connection:
        return int(connection.info.get_parameters()["connect_timeout"])


def asking(database: str, timeout: int) -> str:
    """The same database, with that time for each host."""
    return make_conninfo(database, connect_timeout=timeout)


def test_each_host_has_the_time_that_the_url_gives(database: str) -> None:
    """The relay's own five seconds are for a URL that says nothing."""
    assert seconds(asking(database, 7)) == 7
    assert seconds(asking(database, 3)) == 3
    assert seconds(database) == CONNECT_TIMEOUT_SECONDS


def test_a_line_of_many_databases_has_its_own(database: str, tmp_path: Path) -> None:
    """As a URL on the line, and as a conninfo in the file that the line names."""
    secret = tmp_path / "conninfo"
    secret.write_text(asking(database, 4))
    parts = urlsplit(database)
    url = parts._replace(query=f"{parts.query}&connect_timeout=3".lstrip("&")).geturl()

    (line,) = parse(url, base())
    (other,) = parse(f"database_url_file={secret}", base())

    assert seconds(current_url(line.settings)) == 3
    assert seconds(current_url(other.settings)) == 4


def test_all_hosts_together_have_a_limit(database: str) -> None:
    """Whatever is asked for: a loop that waits for longer than that would look stalled."""
    host, port = urlsplit(database).hostname, urlsplit(database).port
    four = make_conninfo(database, host=",".join([str(host)] * 4), port=str(port))

    assert seconds(asking(database, 3600)) == MAX_CONNECT_SECONDS
    assert seconds(asking(database, 0)) == MAX_CONNECT_SECONDS  # libpq: for ever
    assert seconds(asking(four, 3600)) == MAX_CONNECT_SECONDS // 4
    assert seconds(asking(four, 3)) == 3


def test_a_frozen_host_has_its_time_and_the_next_one_comes_after_it(
    database: str, frozen: Frozen
) -> None:
    """Two of three are frozen: the third is reached once both have had theirs."""
    parts = urlsplit(database)
    two = frozen.url("x").split("@")[1].partition("/")[0]
    login, _, place = parts.netloc.rpartition("@")
    several = parts._replace(netloc=f"{login}@{two},{two},{place}").geturl()

    began = monotonic()
    assert seconds(asking(several, MIN_CONNECT_SECONDS)) == MIN_CONNECT_SECONDS
    took = monotonic() - began

    assert frozen.connections() == 2
    assert took < 2 * CONNECT_TIMEOUT_SECONDS


def test_a_frozen_server_is_given_up(frozen: Frozen) -> None:
    """As an outage, which is waited out."""
    with pytest.raises(StoreLost, match="does not answer"):
        connect(asking(frozen.url("x"), MIN_CONNECT_SECONDS), "test", 5.0)


def test_a_time_that_is_none_is_a_wrong_setting(database: str) -> None:
    """Said in a sentence that repeats nothing of the URL."""
    with pytest.raises(SettingsError, match=r"^connect_timeout in the database's URL is not"):
        connect(make_conninfo(database, connect_timeout="soon"), "test", 5.0)

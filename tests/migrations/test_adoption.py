"""Projects as they are: other vendors in tests, either driver, and URLs as SQLAlchemy has them."""

import subprocess
import sys
from importlib.metadata import requires

import psycopg
import pytest
from packaging.requirements import Requirement

from outbox_migrations import (
    DatabaseUnreachable,
    InvalidSetting,
    MigrationError,
    downgrade,
    grant,
    sql,
    status,
    upgrade,
)
from outbox_migrations.database import transaction


def test_other_vendors_are_left_alone() -> None:
    """A project whose tests run on SQLite migrates without a word: it is asked for nothing."""
    program = """
import django
from django.conf import settings
from django.core.management import call_command

database = {"ENGINE": "django.db.backends.sqlite3", "NAME": ":memory:"}
settings.configure(DATABASES={"default": database}, INSTALLED_APPS=["outbox_migrations.django"])
django.setup()
call_command("migrate", verbosity=0)
call_command("migrate", "outbox_migrations", "zero", verbosity=0)
"""
    ran = subprocess.run(
        [sys.executable, "-c", program], capture_output=True, text=True, check=False, timeout=60
    )
    assert (ran.returncode, ran.stdout, ran.stderr) == (0, "", "")


def test_an_install_brings_no_driver() -> None:
    """Django would take psycopg 3 as soon as it is there, and leave the driver a project chose."""
    wanted = [Requirement(each) for each in requires("outbox-migrations") or ()]

    drivers = [each for each in wanted if each.name.startswith(("psycopg", "asyncpg"))]
    assert drivers
    for driver in drivers:
        assert driver.marker
        assert not driver.marker.evaluate({"extra": ""})


@pytest.mark.parametrize("driver", ["psycopg", "psycopg2", "asyncpg"])
def test_the_driver_part_of_a_url_is_dropped(shared_database: str, driver: str) -> None:
    """The URL of an SQLAlchemy project serves as it is."""
    url = shared_database.replace("postgresql://", f"postgresql+{driver}://")

    assert all(each.current for each in status(url))


@pytest.mark.parametrize("driver", ["psycopg", "psycopg2"])
def test_either_driver_does_it_all(
    empty_database: str, driver: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Also where the other one is not installed."""
    other = {"psycopg": "psycopg2", "psycopg2": "psycopg"}[driver]
    with monkeypatch.context() as patch:
        patch.setitem(sys.modules, other, None)
        upgrade(empty_database)
        roles = grant(empty_database)
        assert all(each.current for each in status(empty_database))

    with psycopg.connect(empty_database) as connection:
        connection.execute("SELECT outbox.enqueue('shop.bill', '[\"100%\"]')")
        shown = connection.execute("SELECT args FROM outbox.pending").fetchall()
    assert shown == [('["100%"]',)]
    assert len(roles) == 7

    with monkeypatch.context() as patch:
        patch.setitem(sys.modules, other, None)
        downgrade(empty_database)
        assert all(each.found is None for each in status(empty_database))


@pytest.mark.parametrize("driver", ["psycopg", "psycopg2"])
def test_either_driver_tells_what_is_wrong(empty_database: str, driver: str) -> None:
    """In the same words, without the password."""
    away = f"postgresql+{driver}://owner:hunter2@127.0.0.1:1/shop"
    malformed = f"postgresql+{driver}://owner:hunter2@127.0.0.1:port/shop?nonsense=1"
    url = empty_database.replace("postgresql://", f"postgresql+{driver}://")

    with pytest.raises(DatabaseUnreachable) as refused:
        status(away)
    assert "hunter2" not in str(refused.value)
    with pytest.raises(InvalidSetting, match="OUTBOX_DATABASE_URL is malformed") as refused_url:
        status(malformed)
    assert "hunter2" not in str(refused_url.value)
    with pytest.raises(MigrationError, match="nothing was granted: there is no schema"):
        grant(url)
    with (
        pytest.raises(MigrationError, match=r'^no luck: relation "nothing" does not exist$'),
        transaction(url, "no luck") as connection,
    ):
        connection.exec_driver_sql("SELECT * FROM nothing")


def test_no_driver_at_all(monkeypatch: pytest.MonkeyPatch) -> None:
    """What to install is said in one sentence; what needs no database works all the same."""
    for driver in ("psycopg", "psycopg2"):
        monkeypatch.setitem(sys.modules, driver, None)

    with pytest.raises(MigrationError, match=r"pip install 'outbox-migrations\[psycopg\]'"):
        upgrade("postgresql://127.0.0.1/shop")
    assert "CREATE TABLE" in sql()


def test_loading_it_loads_no_driver() -> None:
    """Neither the package nor its Django app: Django's own choice comes first."""
    program = """
import sys
import outbox_migrations, outbox_migrations.cli, outbox_migrations.django.operations
print(sorted({"psycopg", "psycopg2", "asyncpg"} & {*sys.modules}))
"""
    ran = subprocess.run(
        [sys.executable, "-c", program], capture_output=True, text=True, check=True, timeout=60
    )
    assert ran.stdout == "[]\n"

"""One table says what can be set: no setting without a row, no row without a setting."""

from dataclasses import fields

import pytest

from outbox_relay.broker.registry import OF_BROKERS, OF_CHECKS
from outbox_relay.configuration import BROKER_URL, TABLE, from_environment
from outbox_relay.settings import Settings
from outbox_relay.settings.setting import Setting
from outbox_relay.settings.table import OWN

URLS = {"OUTBOX_DATABASE_URL": "postgresql://db/shop", "OUTBOX_BROKER_URL": "amqp://mq/shop"}


def test_the_table_is_what_settings_hold() -> None:
    """Each of the relay's own is an attribute, each of a broker's is asked for by its row."""
    held = {field.name for field in fields(Settings)}

    assert held == {setting.field for setting in (BROKER_URL, *OWN)} | {"of_brokers"}
    assert {*TABLE} == {BROKER_URL, *OWN, *OF_BROKERS, *OF_CHECKS}
    assert len({setting.name for setting in TABLE}) == len(TABLE)


@pytest.mark.parametrize("setting", TABLE, ids=lambda setting: setting.name)
def test_the_default_that_is_shown_is_the_one_that_is_used(setting: Setting[object]) -> None:
    """Written out in the environment, it changes nothing."""
    spelt_out = {setting.name: setting.default} if setting.default else {}

    assert from_environment({**URLS, **spelt_out}) == from_environment(URLS)
    if not setting.secret and setting.default:
        assert setting.parse(setting.default) == setting.initial

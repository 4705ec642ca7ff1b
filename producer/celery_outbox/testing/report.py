"""At the end of a test session: what was sent outside of a transaction, with file and line."""

from typing import Any, Final

import pytest

from celery_outbox.dispatch import listeners
from celery_outbox.testing.outside import Outside

#: The setting of pytest that leaves the report out.
SETTING: Final = "outbox_report"
#: Under which the workers of pytest-xdist hand theirs over.
KEY: Final = "celery_outbox_outside"


class Report:
    """The hooks of one session."""

    def __init__(self, config: pytest.Config) -> None:
        self._config: Any = config
        self._outside = Outside()
        listeners.append(self._outside.note)

    def pytest_sessionfinish(self) -> None:
        """Hand over what a worker of pytest-xdist has noted."""
        if hasattr(self._config, "workeroutput"):
            self._config.workeroutput[KEY] = self._outside.packed()

    @pytest.hookimpl(optionalhook=True)
    def pytest_testnodedown(self, node: Any) -> None:
        """Take it over."""
        self._outside.add(getattr(node, "workeroutput", {}).get(KEY, ()))

    def pytest_terminal_summary(self, terminalreporter: Any) -> None:
        """Print it, if there is anything."""
        if not self._outside:
            return
        terminalreporter.write_sep("=", "celery-outbox: sent outside of a transaction")
        for line in self._outside.lines():
            terminalreporter.write_line(line)
        terminalreporter.write_line(
            "Each is stored by itself, whatever becomes of the data it belongs to. Where that is"
            f" meant, `{SETTING} = false` in the settings of pytest leaves this report out."
        )

    def pytest_unconfigure(self) -> None:
        """Listen no more."""
        listeners.remove(self._outside.note)


def pytest_addoption(parser: pytest.Parser) -> None:
    """Add the setting."""
    text = "whether to list, at the end, what was sent outside of a transaction"
    parser.addini(SETTING, text, type="bool", default=True)


def pytest_configure(config: pytest.Config) -> None:
    """Listen from here on."""
    if config.getini(SETTING):
        config.pluginmanager.register(Report(config))

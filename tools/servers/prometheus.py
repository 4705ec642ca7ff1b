"""A private Prometheus that scrapes what it is told, for tests of dashboard and alerts."""

import json
import os
import shutil
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any, Final
from urllib.parse import urlencode
from urllib.request import urlopen

from servers import debian
from servers.server import Command, Server

#: One static binary each for server and tool, about 19 MB.
BUNDLE: Final = debian.Bundle(
    title="Prometheus",
    package="prometheus",
    prefixes=("prometheus",),
    way_out="Install it (apt-get install prometheus), or do without: PROMETHEUS=off.",
)

_CONFIGURATION = """
global: {{scrape_interval: 1s, scrape_timeout: 1s}}
scrape_configs:
  - job_name: outbox-relay
    static_configs: {targets}
"""


def find_or_fetch(program: str) -> Path:
    """Return `prometheus` or `promtool`: the machine's, the unpacked one, or unpack it now."""
    if found := shutil.which(program):
        return Path(found)
    inside = f"usr/bin/{program}"
    if os.access(debian.CACHE / BUNDLE.folder / inside, os.X_OK):
        return debian.CACHE / BUNDLE.folder / inside
    return debian.fetch(debian.CACHE, BUNDLE) / inside


class Prometheus(Server):
    """A server that scrapes its targets (host:port) every second as the job `outbox-relay`.

    Targets that are given by names have these as their label `instance`.
    """

    name = "prometheus"

    def __init__(
        self, folder: Path, executable: Path, targets: Sequence[str] | Mapping[str, str]
    ) -> None:
        super().__init__(folder)
        self._executable = executable
        self._targets = targets

    def ask(self, path: str, parameters: Mapping[str, str | float]) -> Any:
        """Return the data of an answer of the HTTP API, such as of `query_range`."""
        address = f"http://127.0.0.1:{self.port}/api/v1/{path}?{urlencode(parameters)}"
        with urlopen(address, timeout=10) as answer:
            return json.load(answer)["data"]

    def _command(self) -> Command:
        configuration = self.folder / "prometheus.yml"
        configuration.write_text(_CONFIGURATION.format(targets=_static(self._targets)))
        return Command(
            [
                str(self._executable),
                f"--config.file={configuration}",
                f"--storage.tsdb.path={self.folder / 'data'}",
                f"--web.listen-address=127.0.0.1:{self.port}",
            ]
        )

    def _is_ready(self) -> bool:
        try:
            with urlopen(f"http://127.0.0.1:{self.port}/-/ready", timeout=1) as answer:
                return bool(answer.status == 200)
        except OSError:
            return False


def _static(targets: Sequence[str] | Mapping[str, str]) -> str:
    """As `static_configs` has them; JSON is YAML."""
    if not isinstance(targets, Mapping):
        return json.dumps([{"targets": list(targets)}])
    return json.dumps(
        [{"targets": [at], "labels": {"instance": name}} for name, at in targets.items()]
    )

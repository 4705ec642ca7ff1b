"""The agent that runs in this process; without one these tests are a mistake."""

import os

import pytest

from apm.agents import AGENTS, Agent


@pytest.fixture(scope="session")
def agent() -> Agent:
    """The one that sitecustomize has started."""
    return AGENTS[os.environ["APM_AGENT"]]

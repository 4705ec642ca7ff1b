"""Start the agent that APM_AGENT names in every Python that begins, as agents' own starters do."""

import os

if "APM_AGENT" in os.environ:
    from apm.agents import AGENTS

    AGENTS[os.environ["APM_AGENT"]].start()

"""Codex CLI: one process for each agent, the responses API, always streaming."""

import asyncio
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

from tests.agents.model_server import MODEL
from tests.agents.programs import Ended, run_program
from tests.agents.tasks import Task

NAME = "codex"
CONFIG = """\
model = "{model}"
model_provider = "mars"
web_search = "disabled"

[model_providers.mars]
name = "mars"
base_url = "{base_url}"
wire_api = "responses"
env_key = "OPENAI_API_KEY"
"""


@dataclass(frozen=True)
class Codex:
    programs: Path
    base_url: str
    folder: Path
    gateway_url: str | None = None
    """What runs its processes. None: it does, on this machine."""

    async def run(self, tasks: Sequence[Task]) -> list[Ended]:
        for task in tasks:
            settings = self._home(task) / "config.toml"
            settings.parent.mkdir(parents=True, exist_ok=True)
            settings.write_text(CONFIG.format(model=MODEL, base_url=self.base_url))
        return await asyncio.gather(*(self._run(task) for task in tasks))

    def _home(self, task: Task) -> Path:
        return self.folder / task.name / ".codex"

    async def _run(self, task: Task) -> Ended:
        command = [str(self.programs / NAME), "exec", "--dangerously-bypass-approvals-and-sandbox"]
        command += ["--skip-git-repo-check", "-C", str(task.repository), task.prompt]
        environment = {"CODEX_HOME": str(self._home(task))}
        if self.gateway_url is not None:
            address = self.gateway_url.replace("http://", "ws://")
            environment["CODEX_EXEC_SERVER_URL"] = f"{address}/compat/codex"
        return await run_program(command, self.folder / task.name, environment)

"""opencode: one process for each agent, chat completions, always streaming."""

import asyncio
import json
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

from tests.agents.model_server import CONTEXT_TOKENS, MODEL
from tests.agents.programs import Ended, run_program, shim
from tests.agents.tasks import Task

NAME = "opencode"


@dataclass(frozen=True)
class OpenCode:
    programs: Path
    base_url: str
    folder: Path
    gateway_url: str | None = None
    """Which admits the commands of its shell. None: nobody does."""

    async def run(self, tasks: Sequence[Task]) -> list[Ended]:
        return await asyncio.gather(*(self._run(task) for task in tasks))

    async def _run(self, task: Task) -> Ended:
        environment = {
            "OPENCODE_CONFIG_CONTENT": json.dumps(self._settings()),
            "OPENCODE_DISABLE_AUTOUPDATE": "1",
            "OPENCODE_DISABLE_MODELS_FETCH": "1",
        }
        if self.gateway_url is not None:
            environment |= {"SHELL": shim("gwsh"), "MARS_GATEWAY_URL": self.gateway_url}
        command = [str(self.programs / NAME), "run", "--auto", "--dir", str(task.repository), task.prompt]
        return await run_program(command, self.folder / task.name, environment)

    def _settings(self) -> dict[str, object]:
        limit = {"context": CONTEXT_TOKENS, "output": 2000}
        mars = {
            "npm": "@ai-sdk/openai-compatible",
            "options": {"baseURL": self.base_url, "apiKey": "unused"},
            "models": {MODEL: {"limit": limit}},
        }
        return {"model": f"mars/{MODEL}", "small_model": f"mars/{MODEL}", "provider": {"mars": mars}}

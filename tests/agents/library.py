"""Frameworks that are libraries: one process, all agents in it, the program in ``runners/``.

So agents share connections and a client, which tells apart what goes by the connection.
"""

import json
from collections.abc import Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from tests.agents.model_server import MODEL
from tests.agents.programs import Ended, run_program
from tests.agents.tasks import Task

RUNNERS = Path(__file__).parent / "runners"


@dataclass(frozen=True)
class Library:
    runner: str
    python: Path
    base_url: str
    gateway_url: str
    folder: Path
    settings: dict[str, Any] = field(default_factory=dict)
    """What only this runner knows."""

    async def run(self, tasks: Sequence[Task]) -> Ended:
        self.folder.mkdir(parents=True, exist_ok=True)
        job = self.folder / "job.json"
        job.write_text(json.dumps(self._job(tasks)))
        command = [str(self.python), str(RUNNERS / self.runner), str(job)]
        return await run_program(command, self.folder, self._environment)

    @property
    def _environment(self) -> dict[str, str]:
        return {"OPENAI_BASE_URL": self.base_url, "MARS_GATEWAY_URL": self.gateway_url}

    def _job(self, tasks: Sequence[Task]) -> dict[str, object]:
        return {
            "base_url": self.base_url,
            "gateway_url": self.gateway_url,
            "model": MODEL,
            "tasks": [
                {"name": task.name, "prompt": task.prompt, "folder": str(task.repository)} for task in tasks
            ],
            **self.settings,
        }

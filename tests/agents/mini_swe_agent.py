"""mini-swe-agent: its command ``mini``, one process for each agent."""

import asyncio
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

from tests.agents.answers import call
from tests.agents.model_server import MODEL
from tests.agents.programs import Ended, run_program, shim
from tests.agents.tasks import Task

NAME = "mini-swe-agent"
SUBMIT = call("bash", command="echo COMPLETE_TASK_AND_SUBMIT_FINAL_OUTPUT")


@dataclass(frozen=True)
class MiniSweAgent:
    programs: Path
    base_url: str
    folder: Path
    gateway_url: str | None = None
    """Where its commands run, in what it takes for a container. None: on this machine, by itself."""

    async def run(self, tasks: Sequence[Task]) -> list[Ended]:
        return await asyncio.gather(*(self._run(task) for task in tasks))

    async def _run(self, task: Task) -> Ended:
        home = self.folder / task.name
        command = [str(self.programs / "mini"), "-m", f"openai/{MODEL}", "-t", task.prompt]
        command += ["--yolo", "--cost-limit", "0", "--exit-immediately", "-o", str(home / "trajectory.json")]
        environment = {
            "OPENAI_BASE_URL": self.base_url,
            "MSWEA_COST_TRACKING": "ignore_errors",
            "MSWEA_CONFIGURED": "true",
            "MSWEA_GLOBAL_CONFIG_DIR": str(home),
        }
        if self.gateway_url is not None:
            command += ["-c", "mini.yaml", "-c", "environment.image=any", "--environment-class", "docker"]
            environment |= {
                "MSWEA_DOCKER_EXECUTABLE": shim("gw-docker"),
                "MARS_GATEWAY_URL": self.gateway_url,
            }
        return await run_program(command, home, environment)

"""OpenHands' SDK with its tools: one process, one conversation for each agent, in threads."""

import json
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

from tests.agents.environments import FRAMEWORKS
from tests.agents.model_server import MODEL, Answer, ModelServer
from tests.agents.programs import Ended, run_program
from tests.agents.tasks import Task

NAME = "openhands"
FINISH: Answer = {"tool": "finish", "args": {"message": "Mended."}}


@dataclass(frozen=True)
class OpenHands:
    programs: Path
    base_url: str
    folder: Path
    is_streaming: bool = False
    has_sub_agents: bool = False
    condense_after: int | None = None
    """Events of a conversation after which its history is condensed. None: never."""

    async def run(self, tasks: Sequence[Task]) -> list[Ended]:
        job = self.folder / "job.json"
        self.folder.mkdir(parents=True, exist_ok=True)
        job.write_text(json.dumps(self._job(tasks)))
        runner = str(FRAMEWORKS / NAME / "runner.py")
        environment = {"OPENHANDS_SUPPRESS_BANNER": "1"}
        return [
            await run_program([str(self.programs / "python"), runner, str(job)], self.folder, environment)
        ]

    def _job(self, tasks: Sequence[Task]) -> dict[str, object]:
        return {
            "base_url": self.base_url,
            "model": f"openai/{MODEL}",
            "is_streaming": self.is_streaming,
            "has_sub_agents": self.has_sub_agents,
            "condense_after": self.condense_after,
            "tasks": [{"prompt": task.prompt, "folder": str(task.repository)} for task in tasks],
        }


def script(model: ModelServer, tasks: Sequence[Task]) -> None:
    """Commands in the terminal, the edit with the editor."""
    for task in tasks:
        answers = [terminal(task.look), terminal(task.check), edit(task), terminal(task.check), FINISH]
        model.will_say({"user": task.marker}, answers)


def terminal(command: str) -> Answer:
    return {"text": "Next.", "tool": "terminal", "args": {"command": command}}


def edit(task: Task) -> Answer:
    args = {
        "command": "str_replace",
        "path": str(task.repository / "prices.py"),
        "old_str": task.old,
        "new_str": task.new,
    }
    return {"tool": "file_editor", "args": args}

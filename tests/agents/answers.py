"""What the scripted model says to a task, in the words of tools that several frameworks share."""

from collections.abc import Sequence

from tests.agents.model_server import Answer, ModelServer
from tests.agents.tasks import Task

DONE: Answer = {"text": "Mended."}


def call(tool: str, **args: str) -> Answer:
    return {"text": "Next.", "tool": tool, "args": args}


def mends_with(model: ModelServer, tasks: Sequence[Task], tool: str, end: Answer = DONE) -> None:
    """Every step is a command of the one tool."""
    for task in tasks:
        model.will_say({"user": task.marker}, [*(call(tool, command=each) for each in task.commands), end])

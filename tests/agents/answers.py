"""What the scripted model says to a task, in the words of tools that several frameworks share."""

from collections.abc import Sequence

from tests.agents.model_server import Answer, ModelServer
from tests.agents.tasks import Task

DONE: Answer = {"text": "Mended."}


def call(tool: str, **args: str) -> Answer:
    return {"text": "Next.", "tool": tool, "args": args}


def mends_with(
    model: ModelServer,
    tasks: Sequence[Task],
    tool: str,
    end: Answer = DONE,
    *,
    argument: str = "command",
    **more: str,
) -> None:
    """Every step is a command of the one tool, given as its ``argument``; ``more`` are its other ones."""
    for task in tasks:
        steps = [call(tool, **{argument: command}, **more) for command in task.commands]
        model.will_say({"user": task.marker}, [*steps, end])

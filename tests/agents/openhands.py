"""What the scripted model says to agents of OpenHands, in the words of OpenHands' tools."""

from collections.abc import Sequence

from tests.agents.answers import call
from tests.agents.model_server import Answer, ModelServer
from tests.agents.tasks import Task

NAME = "openhands"
FINISH: Answer = {"tool": "finish", "args": {"message": "Mended."}}


def mends(model: ModelServer, tasks: Sequence[Task]) -> None:
    """Commands in the terminal, the edit with the editor."""
    for task in tasks:
        check = call("terminal", command=task.check)
        answers = [call("terminal", command=task.look), check, edit(task), check, FINISH]
        model.will_say({"user": task.marker}, answers)


def edit(task: Task) -> Answer:
    path = str(task.repository / "prices.py")
    return call("file_editor", command="str_replace", path=path, old_str=task.old, new_str=task.new)

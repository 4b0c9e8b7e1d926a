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


def delegates(model: ModelServer, tasks: Sequence[Task]) -> None:
    """The edit is a sub-agent's."""
    for task in tasks:
        prompt = f"[part of {task.name}] Mend prices.py in {task.repository}."
        check = call("terminal", command=task.check)
        part = call("task", description="Mend it", prompt=prompt, subagent_type="general-purpose")
        model.will_say({"user": task.marker}, [check, part, check, FINISH])
        model.will_say(
            {"user": f"[part of {task.name}]"}, [call("terminal", command=task.look), edit(task), FINISH]
        )


def mends_at_length(model: ModelServer, tasks: Sequence[Task]) -> int:
    """So many commands that histories are condensed. What comes next follows from what the last one
    printed: the number of answers in a condensed history says nothing. Returns the number of turns."""
    model.will_say({"tools": False}, [{"text": "So far, so good."}])
    for task in tasks:
        commands = [*task.commands, task.look, task.check, task.look, task.check]
        steps = [f"{command}; echo step {n} of {task.name} is over" for n, command in enumerate(commands, 1)]
        answers = [*(call("terminal", command=step) for step in steps), FINISH]
        model.will_say({"user": task.marker}, answers[:1])
        for n, answer in enumerate(answers[1:], 1):
            model.will_say({"user": task.marker, "last": f"step {n} of {task.name} is over"}, [answer])
    return len(answers)


def edit(task: Task) -> Answer:
    path = str(task.repository / "prices.py")
    return call("file_editor", command="str_replace", path=path, old_str=task.old, new_str=task.new)

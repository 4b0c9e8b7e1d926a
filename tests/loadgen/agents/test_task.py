"""Tasks say the same to the agent, to the script and to the shell."""

import msgspec
import pytest

from backend_patch.script import Asked, Script, ScriptLine
from loadgen.agents.task import DIALECTS, LONGEST_OUTPUT_CHARS, Task, dialect_of, tasks_of
from loadgen.errors import LoadgenError
from loadgen.text import TextSource
from loadgen.workload import Session, ToolCall, Turn
from tests.loadgen.agents.building import session_of


class Said(msgspec.Struct):
    role: str
    text: str


def asked(prompt: str, answers: int) -> Asked:
    history = [Said("user", prompt)] + [Said("assistant", "")] * answers
    return Asked(session=None, messages=history, has_tools=True)


@pytest.mark.parametrize("framework", sorted(DIALECTS))
def test_the_script_has_an_answer_for_every_turn_of_the_task_and_of_no_other(framework: str) -> None:
    tasks = tasks_of([session_of("a-1"), session_of("a-11")], 4.0)
    dialect, text = dialect_of(framework), TextSource(seed=1)
    script = Script([msgspec.json.decode(task.script_line(dialect), type=ScriptLine) for task in tasks])
    for task in tasks:
        answers = [script.answer(asked(task.prompt(text), turn)) for turn in range(3)]
        calls = [each.calls[0] for each in answers if each is not None]
        assert [call.name for call in calls] == [dialect.command_tool] * 2 + [dialect.finish_tool]
        arguments = [msgspec.json.decode(call.args) for call in calls]
        assert [each["command"] for each in arguments[:2]] == [task.command(1), task.command(2)]
        assert [each.output_tokens for each in answers if each is not None] == [60, 60, 60]


def test_commands_take_the_traced_time_and_print_what_the_next_turn_adds() -> None:
    waits = Turn(new_tokens=1, output_tokens=9, tool=ToolCall("bash", 1.5, cores=0.2))
    session = Session(id="a", turns=[waits, Turn(new_tokens=100, output_tokens=9)])
    command = Task(session, chars_per_token=4.0).command(1)
    assert command.startswith("python3 -IS step.py 1 --seconds=1.500 --cpu=0.300 --chars=400 --seed=")


def test_no_two_commands_are_alike() -> None:
    tasks = tasks_of([session_of(f"a-{i}", steps=20) for i in range(20)], 4.0)
    assert len({task.command(step) for task in tasks for step in range(1, 21)}) == 400


def test_long_outputs_stay_below_what_frameworks_cut() -> None:
    session = Session(id="a", turns=[Turn(1, 9), Turn(1_000_000, 9)])
    assert f"--chars={LONGEST_OUTPUT_CHARS} " in Task(session).command(1)


def test_a_session_of_one_turn_is_no_task() -> None:
    with pytest.raises(LoadgenError, match="'a' has one turn"):
        tasks_of([Session(id="a", turns=[Turn(1, 1)])], 4.0)


def test_an_unknown_framework_is_refused_with_those_that_there_are() -> None:
    with pytest.raises(LoadgenError, match="allowed: mini-swe-agent, openhands"):
        dialect_of("auto")

"""Runs that are one file: mini-swe-agent, SWE-agent, and OpenHands before its SDK."""

from pathlib import Path
from typing import Any

import pytest

from loadgen.errors import WorkloadError
from loadgen.importers import mini_swe_agent, openhands_list, swe_agent
from loadgen.workload import Session, ToolCall, Turn
from tests.loadgen.importers.samples import (
    SECRET,
    document,
    mini_run,
    new_reading,
    sessions_of,
    swe_run,
    swe_step,
    words,
)
from tests.loadgen.importers.samples import (
    openhands_list as old_openhands,
)


def test_mini_keeps_usage_and_times(tmp_path: Path) -> None:
    """What could not be parsed is no turn; it is in the prompt of the next."""
    reading = new_reading()
    path = document(tmp_path / "run.traj.json", mini_run())
    (session,) = sessions_of(mini_swe_agent.read(path, reading), reading)
    assert session.turns == [Turn(300, 40, ToolCall("bash", 2.5)), Turn(40, 10)]
    assert session.tokens_by == "usage"
    assert reading.notes.counts["failed calls"] == 1


def mini_session(path: Path, messages: list[Any], *, keep_text: bool = False) -> Session:
    reading = new_reading(keep_text=keep_text)
    document(path / "run.traj.json", {"messages": messages})
    (session,) = sessions_of(mini_swe_agent.read(path / "run.traj.json", reading), reading)
    return session


def test_mini_of_the_first_version_is_counted(tmp_path: Path) -> None:
    messages = [
        {"role": "system", "content": words(100)},
        {"role": "user", "content": words(100)},
        {"role": "assistant", "content": words(10)},
        {"role": "user", "content": words(20)},
        {"role": "assistant", "content": words(2)},
    ]
    session = mini_session(tmp_path, messages)
    assert session.turns == [Turn(200, 10), Turn(20, 2)]
    assert session.tokens_by == "characters"


def test_mini_with_the_responses_api(tmp_path: Path) -> None:
    usage = {"input_tokens": 70, "output_tokens": 9}
    answer = {
        "object": "response",
        "output": [],
        "usage": usage,
        "extra": {"actions": [{"command": "ls"}], "timestamp": 5},
    }
    observed = {"type": "function_call_output", "output": "x", "extra": {"returncode": 0, "timestamp": 6.5}}
    session = mini_session(tmp_path, [answer, observed, answer], keep_text=True)
    assert session.turns[0] == Turn(70, 9, ToolCall("bash", 1.5, command="ls"))


def test_swe_agent_steps(tmp_path: Path) -> None:
    """The first prompt is the first step's query; the last step ends the session, so its time is nobody's."""
    reading = new_reading()
    path = document(tmp_path / "run.traj", swe_run())
    (session,) = sessions_of(swe_agent.read(path, reading), reading)
    assert [turn.tool for turn in session.turns] == [ToolCall("bash", 1.5), ToolCall("bash", 0.25), None]
    assert [turn.new_tokens for turn in session.turns] == [150, 30, 20]
    assert session.tokens_by == "characters"
    assert reading.notes.counts["failed calls"] == 1


def test_swe_agent_of_the_first_versions(tmp_path: Path) -> None:
    """The first prompt is in the history, demonstrations and all; there are no times."""
    history = [
        {"role": "system", "content": words(100)},
        {"role": "assistant", "content": words(40), "is_demo": True},
        {"role": "user", "content": words(60)},
        {"role": "assistant", "content": words(10)},
    ]
    steps = [swe_step("ls", "", None), swe_step("submit", "", None)]
    reading = new_reading()
    path = document(tmp_path / "run.traj", {"trajectory": steps, "history": history, "info": {}})
    (session,) = sessions_of(swe_agent.read(path, reading), reading)
    assert [turn.tool for turn in session.turns] == [ToolCall("bash", None), None]
    assert session.turns[0].new_tokens == 200


def test_openhands_before_the_sdk(tmp_path: Path) -> None:
    reading = new_reading()
    path = document(tmp_path / "trajectory.json", old_openhands())
    (session,) = sessions_of(openhands_list.read(path, reading), reading)
    assert session.turns[:2] == [
        Turn(500, 30, ToolCall("execute_bash", 2.5)),
        Turn(70, 30, ToolCall("execute_bash", 1.0)),
    ]
    assert session.tokens_by == "mixed"


@pytest.mark.parametrize("reader", [mini_swe_agent, swe_agent, openhands_list])
@pytest.mark.parametrize("content", ['{"messages": [\n{"role": "us', '{"x": 1}', ""])
def test_a_broken_file_is_an_error_with_its_name(tmp_path: Path, reader: Any, content: str) -> None:
    path = tmp_path / "run.traj"
    path.write_text(content, "utf-8")
    with pytest.raises(WorkloadError, match=r"run\.traj") as caught:
        reader.read(path, new_reading())
    assert SECRET not in str(caught.value)


def test_the_line_where_a_document_breaks_is_told(tmp_path: Path) -> None:
    path = document(tmp_path / "run.traj", swe_run())
    path.write_text("\n".join(path.read_text("utf-8").splitlines()[:9]), "utf-8")
    with pytest.raises(WorkloadError, match="was it cut off") as caught:
        swe_agent.read(path, new_reading())
    assert caught.value.line == 9

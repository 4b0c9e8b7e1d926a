"""A time that nobody knows is taken from those of the same tool, and counted."""

from pathlib import Path

import pytest

from loadgen.source import open_workload
from loadgen.trace import write_sessions
from loadgen.unknown_times import UNKNOWN_TOOL_S, UnknownTimes
from loadgen.workload import Session, ToolCall, Turn


def session(*tools: ToolCall | None) -> Session:
    return Session("s", [Turn(10, 5, tool=tool) for tool in tools])


def times(sessions: list[Session]) -> list[float | None]:
    return [turn.tool.duration_s for each in sessions for turn in each.turns if turn.tool]


def test_the_median_of_the_same_tool_else_of_all() -> None:
    known = [ToolCall("a", 1.0), ToolCall("a", 2.0), ToolCall("a", 9.0), ToolCall("b", 4.0)]
    unknown = UnknownTimes()
    made = unknown.replace([session(*known, None), session(ToolCall("a", None), ToolCall("c", None))])
    assert times(made) == [1.0, 2.0, 9.0, 4.0, 2.0, 3.0]
    assert unknown.assumed == 2


def test_where_no_time_is_known_it_is_a_published_median() -> None:
    unknown = UnknownTimes()
    assert times(unknown.replace([session(ToolCall("a", None))])) == [UNKNOWN_TOOL_S]


def test_zero_is_a_time() -> None:
    unknown = UnknownTimes()
    assert times(unknown.replace([session(ToolCall("a", 0.0))])) == [0.0]
    assert unknown.assumed == 0


def test_an_opened_workload_says_how_many(tmp_path: Path) -> None:
    path = tmp_path / "w.jsonl"
    write_sessions(path, [session(ToolCall("a", 3.0), ToolCall("a", None), None)])
    workload = open_workload(str(path))
    assert times(workload.sessions) == [3.0, 3.0]
    assert workload.assumed_tool_times == 1
    assert open_workload("demo", sessions=2).assumed_tool_times == 0


def test_a_workload_that_was_not_opened_has_no_number_to_play() -> None:
    with pytest.raises(AssertionError, match="where a workload is opened"):
        _ = ToolCall("a", None).traced_s

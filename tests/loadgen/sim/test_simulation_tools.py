"""Tools between the turns: when they run, and what the policy hears of them."""

from loadgen.sim.tool_hosts import Discipline, ToolHostShape
from loadgen.workload import Turn
from marsproxy.core.events import (
    ToolHostsObserved,
    ToolObserved,
    ToolPhase,
)
from tests.loadgen.sim.playing import play, session, tool

TWO_TOOLS = [session(name, Turn(10, 1, tool(4.0)), Turn(10, 1)) for name in "ab"]


def test_tools_wait_for_a_slot() -> None:
    played = play(TWO_TOOLS, tools=ToolHostShape(1.0))
    first, second = played.turns["a", 1], played.turns["b", 1]
    assert (first.tool, first.tool_queue_s, first.tool_run_s) == ("bash", 0.0, 4.0)
    assert (second.tool_start_s, second.tool_end_s) == (1.0, 9.0)
    assert (second.tool_queue_s, second.tool_run_s) == (4.0, 4.0)
    reports = played.heard(ToolObserved)
    assert [(now, each.exec_id, each.phase.value, each.queue_s, each.run_s) for now, each in reports] == [
        (1.0, "a/1", "queued", None, None),
        (1.0, "a/1", "started", 0.0, None),
        (1.0, "b/1", "queued", None, None),
        (5.0, "a/1", "finished", 0.0, 4.0),
        (5.0, "b/1", "started", 4.0, None),
        (9.0, "b/1", "finished", 4.0, 4.0),
    ]
    observed = reports[-1][1]
    assert (observed.llm_session, observed.tool_signature, observed.memory_peak_mb) == ("b", "bash", 0.0)
    assert [played.turns[name, 2].sent_s for name in "ab"] == [5.0, 9.0]


def test_tools_share_a_core() -> None:
    played = play(TWO_TOOLS, tools=ToolHostShape(1.0, discipline=Discipline.SHARING))
    assert [(turn.tool_queue_s, turn.tool_run_s) for turn in (played.turns[name, 1] for name in "ab")] == [
        (0.0, 8.0)
    ] * 2


def test_tools_that_are_on_no_host_are_not_reported() -> None:
    asks = [session("a", Turn(10, 1, tool(4.0, cores=0.0)), Turn(10, 1, tool(1.0)), Turn(10, 1))]
    played = play(asks, tools=ToolHostShape(1.0))
    assert {event.exec_id for _, event in played.heard(ToolObserved)} == {"a/2"}
    assert (played.turns["a", 1].tool, played.turns["a", 1].tool_run_s) == ("bash", 4.0)
    assert all(event.cores == 1.0 for _, event in played.heard(ToolHostsObserved))


def test_a_tool_after_the_last_turn_is_nobodys_wait() -> None:
    played = play([session("a", Turn(10, 1, tool(50.0)))], tools=ToolHostShape(1.0))
    assert played.end_s == 1.0
    assert played.turns["a", 1].tool is None


def test_a_tool_that_takes_no_time_ends_in_its_instant() -> None:
    played = play([session("a", Turn(10, 1, tool(0.0)), Turn(10, 1))], tools=ToolHostShape(1.0))
    assert [event.phase for _, event in played.heard(ToolObserved)] == list(ToolPhase)
    assert played.turns["a", 2].sent_s == 1.0

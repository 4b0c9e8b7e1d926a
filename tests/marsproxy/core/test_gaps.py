"""The tables behind the gaps: bounded, and empty when the gaps are over."""

from marsproxy.core.events import ToolPhase
from marsproxy.core.gaps import MAX_DIGESTS, MAX_RUNNING, TOOL_LIMIT_GAPS, Gaps
from marsproxy.core.sessions import SessionState
from tests.marsproxy.core.playbook import tool

STARTED, FINISHED = ToolPhase.STARTED, ToolPhase.FINISHED


def session(session_id: str) -> SessionState:
    return SessionState(session_id, "", "family", 0.0, 0.0)


def over(gaps: Gaps, now: float) -> list[str]:
    return [session.id for session in gaps.pop_over(now)]


def table_sizes(gaps: Gaps) -> tuple[int, int, int]:
    return len(gaps), len(gaps._by_digest), len(gaps._by_exec)


def test_gaps_are_over_in_the_order_in_which_they_fell_quiet():
    gaps = Gaps(idle_gap_s=10.0)
    for start_s, name in enumerate("abc"):
        gaps.begin(session(name), (), start_s)
    assert gaps.next_over_s() == 10.0
    assert over(gaps, 11.0) == ["a", "b"]
    assert gaps.next_over_s() == 12.0
    assert over(gaps, 12.0) == ["c"]
    assert gaps.next_over_s() is None


def test_a_session_has_one_gap():
    gaps, a = Gaps(idle_gap_s=10.0), session("a")
    gaps.begin(a, ("d1",), 0.0)
    gaps.begin(a, ("d2",), 5.0)
    assert table_sizes(gaps) == (1, 1, 0)
    assert over(gaps, 14.0) == []
    assert over(gaps, 15.0) == ["a"]


def test_the_next_gap_to_be_over_may_be_one_with_a_tool():
    gaps = Gaps(idle_gap_s=10.0)
    gaps.begin(session("a"), (), 0.0)
    gaps.observe(tool("x1", STARTED, llm_session="a"), 1.0)
    assert gaps.next_over_s() == 1.0 + TOOL_LIMIT_GAPS * 10.0
    gaps.begin(session("b"), (), 95.0)
    assert gaps.next_over_s() == 101.0
    assert over(gaps, 105.0) == ["b", "a"]


def test_nothing_is_left_of_a_gap_that_is_over():
    gaps, a = Gaps(idle_gap_s=10.0), session("a")
    gaps.begin(a, ("d1", "d2", "d3"), 0.0)
    gaps.observe(tool("x1", STARTED, command_digest="d1"), 1.0)
    gaps.observe(tool("x2", STARTED, llm_session="a"), 1.0)
    assert table_sizes(gaps) == (1, 2, 2)
    gaps.end(a)
    gaps.end(a)
    assert table_sizes(gaps) == (0, 0, 0)


def test_what_is_remembered_of_one_gap_is_bounded():
    gaps = Gaps(idle_gap_s=10.0)
    gaps.begin(session("a"), tuple(f"d{number}" for number in range(1_000)), 0.0)
    for number in range(1_000):
        gaps.observe(tool(f"x{number}", STARTED, llm_session="a"), 1.0)
    assert table_sizes(gaps) == (1, MAX_DIGESTS, MAX_RUNNING)


def test_a_command_that_was_seen_is_not_waited_for_any_more():
    """The second run of the same command belongs to whoever asked for it second."""
    gaps = Gaps(idle_gap_s=10.0)
    gaps.begin(session("a"), ("ls",), 0.0)
    gaps.begin(session("b"), ("ls",), 1.0)
    gaps.observe(tool("x1", STARTED, command_digest="ls"), 2.0)
    gaps.observe(tool("x1", FINISHED), 3.0)
    gaps.observe(tool("x2", STARTED, command_digest="ls"), 4.0)
    assert over(gaps, 50.0) == ["a"]


def test_a_run_that_is_queued_and_then_starts_is_joined_once():
    gaps = Gaps(idle_gap_s=10.0)
    gaps.begin(session("a"), ("ls",), 0.0)
    gaps.begin(session("b"), ("ls",), 1.0)
    gaps.observe(tool("x1", ToolPhase.QUEUED, command_digest="ls"), 2.0)
    gaps.observe(tool("x1", STARTED, command_digest="ls"), 3.0)
    assert over(gaps, 50.0) == ["b"]


def test_the_same_run_reported_twice_is_one_run():
    gaps = Gaps(idle_gap_s=10.0)
    gaps.begin(session("a"), (), 0.0)
    gaps.observe(tool("x1", ToolPhase.QUEUED, llm_session="a"), 1.0)
    gaps.observe(tool("x1", STARTED, llm_session="a"), 2.0)
    gaps.observe(tool("x1", FINISHED, llm_session="a"), 3.0)
    assert over(gaps, 13.0) == ["a"]

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
        gaps.begin(session(name), (), 99.0, start_s)
    assert gaps.next_over_s() == 10.0
    assert over(gaps, 11.0) == ["a", "b"]
    assert gaps.next_over_s() == 12.0
    assert over(gaps, 12.0) == ["c"]
    assert gaps.next_over_s() is None


def test_a_session_has_one_gap():
    gaps, a = Gaps(idle_gap_s=10.0), session("a")
    gaps.begin(a, ("d1",), 99.0, 0.0)
    gaps.begin(a, ("d2",), 99.0, 5.0)
    assert table_sizes(gaps) == (1, 1, 0)
    assert over(gaps, 14.0) == []
    assert over(gaps, 15.0) == ["a"]


def test_the_next_gap_to_be_over_may_be_one_with_a_tool():
    gaps = Gaps(idle_gap_s=10.0)
    gaps.begin(session("a"), (), 99.0, 0.0)
    gaps.observe(tool("x1", STARTED, llm_session="a"), 1.0)
    assert gaps.next_over_s() == 1.0 + TOOL_LIMIT_GAPS * 10.0
    gaps.begin(session("b"), (), 99.0, 95.0)
    assert gaps.next_over_s() == 101.0
    assert over(gaps, 105.0) == ["b", "a"]


def test_nothing_is_left_of_a_gap_that_is_over():
    gaps, a = Gaps(idle_gap_s=10.0), session("a")
    gaps.begin(a, ("d1", "d2", "d3"), 99.0, 0.0)
    gaps.observe(tool("x1", STARTED, command_digest="d1"), 1.0)
    gaps.observe(tool("x2", STARTED, llm_session="a"), 1.0)
    assert table_sizes(gaps) == (1, 2, 2)
    gaps.end(a)
    gaps.end(a)
    assert table_sizes(gaps) == (0, 0, 0)


def test_what_is_remembered_of_one_gap_is_bounded():
    gaps = Gaps(idle_gap_s=10.0)
    gaps.begin(session("a"), tuple(f"d{number}" for number in range(1_000)), 99.0, 0.0)
    for number in range(1_000):
        gaps.observe(tool(f"x{number}", STARTED, llm_session="a"), 1.0)
    assert table_sizes(gaps) == (1, MAX_DIGESTS, MAX_RUNNING)


def test_a_command_that_was_seen_is_not_waited_for_any_more():
    """The second run of the same command belongs to whoever asked for it second."""
    gaps = Gaps(idle_gap_s=10.0)
    gaps.begin(session("a"), ("ls",), 99.0, 0.0)
    gaps.begin(session("b"), ("ls",), 99.0, 1.0)
    gaps.observe(tool("x1", STARTED, command_digest="ls"), 2.0)
    gaps.observe(tool("x1", FINISHED), 3.0)
    gaps.observe(tool("x2", STARTED, command_digest="ls"), 4.0)
    assert over(gaps, 50.0) == ["a"]


def test_a_run_that_is_queued_and_then_starts_is_joined_once():
    gaps = Gaps(idle_gap_s=10.0)
    gaps.begin(session("a"), ("ls",), 99.0, 0.0)
    gaps.begin(session("b"), ("ls",), 99.0, 1.0)
    gaps.observe(tool("x1", ToolPhase.QUEUED, command_digest="ls"), 2.0)
    gaps.observe(tool("x1", STARTED, command_digest="ls"), 3.0)
    assert over(gaps, 50.0) == ["b"]


def test_the_same_run_reported_twice_is_one_run():
    gaps = Gaps(idle_gap_s=10.0)
    gaps.begin(session("a"), (), 99.0, 0.0)
    gaps.observe(tool("x1", ToolPhase.QUEUED, llm_session="a"), 1.0)
    gaps.observe(tool("x1", STARTED, llm_session="a"), 2.0)
    gaps.observe(tool("x1", FINISHED, llm_session="a"), 3.0)
    assert over(gaps, 13.0) == ["a"]


# -- overdue --------------------------------------------------------------------------------------


def overdue(gaps: Gaps, now: float) -> list[str]:
    gaps.ripen(now)
    return [session.id for session in gaps.overdue()]


def test_gaps_fall_overdue_in_the_order_in_which_they_are_due():
    gaps = Gaps(idle_gap_s=100.0)
    for name, yields_after_s in [("a", 30.0), ("b", 10.0), ("c", 20.0)]:
        gaps.begin(session(name), (), yields_after_s, 0.0)
    assert gaps.next_overdue_s() == 10.0
    assert overdue(gaps, 9.9) == []
    assert overdue(gaps, 25.0) == ["b", "c"]
    assert gaps.next_overdue_s() == 30.0
    assert overdue(gaps, 30.0) == ["b", "c", "a"]
    assert gaps.next_overdue_s() is None
    assert over(gaps, 100.0) == ["a", "b", "c"]
    assert overdue(gaps, 100.0) == []


def test_whether_something_fell_overdue_is_said_once():
    gaps = Gaps(idle_gap_s=100.0)
    gaps.begin(session("a"), (), 10.0, 0.0)
    assert [gaps.ripen(now) for now in (5.0, 10.0, 10.0, 50.0)] == [False, True, False, False]


def test_a_gap_that_is_over_or_began_anew_does_not_fall_overdue_for_its_first_time():
    gaps, a, b = Gaps(idle_gap_s=100.0), session("a"), session("b")
    gaps.begin(a, (), 10.0, 0.0)
    gaps.begin(b, (), 10.0, 0.0)
    gaps.end(a)
    gaps.begin(b, (), 10.0, 5.0)
    assert gaps.next_overdue_s() == 15.0
    assert not gaps.ripen(14.9)
    assert overdue(gaps, 15.0) == ["b"]
    gaps.end(b)
    assert overdue(gaps, 99.0) == []


def test_a_tool_that_ends_puts_its_gap_off():
    """The return is near: the time runs anew from the end of the last tool."""
    gaps = Gaps(idle_gap_s=100.0)
    gaps.begin(session("a"), (), 10.0, 0.0)
    gaps.observe(tool("x1", STARTED, llm_session="a"), 1.0)
    gaps.observe(tool("x2", STARTED, llm_session="a"), 1.0)
    assert overdue(gaps, 12.0) == ["a"]
    gaps.observe(tool("x1", FINISHED), 20.0)
    assert overdue(gaps, 20.0) == ["a"]
    gaps.observe(tool("x2", FINISHED), 21.0)
    assert overdue(gaps, 30.9) == []
    assert overdue(gaps, 31.0) == ["a"]


def test_a_place_that_is_free_for_the_asking_at_once_is_so_at_once():
    gaps = Gaps(idle_gap_s=100.0)
    gaps.begin(session("a"), (), 0.0, 7.0)
    assert gaps.next_overdue_s() == 7.0
    assert overdue(gaps, 7.0) == ["a"]


def test_entries_of_gaps_that_are_over_do_not_pile_up():
    """They are thrown out when their time comes, however many gaps a session had meanwhile."""
    gaps, a = Gaps(idle_gap_s=100.0), session("a")
    for second in range(1_000):
        gaps.begin(a, (), 10.0, float(second))
        gaps.ripen(float(second))
    assert len(gaps._ripening) <= 11

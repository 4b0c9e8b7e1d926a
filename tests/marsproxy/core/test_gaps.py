"""The tables behind the gaps: bounded, and empty when the gaps are over."""

from marsproxy.core.events import ToolPhase
from marsproxy.core.gaps import MAX_RUNNING, TOOL_LIMIT_GAPS, Gap, Gaps
from marsproxy.core.sessions import SessionState
from marsproxy.core.tool_joins import MAX_CLUES
from tests.marsproxy.core.playbook import tool

QUEUED, STARTED, FINISHED = ToolPhase.QUEUED, ToolPhase.STARTED, ToolPhase.FINISHED


def session(session_id: str) -> SessionState:
    return SessionState(session_id, "", "family", 0.0, 0.0)


def over(gaps: Gaps, now: float) -> list[str]:
    return [session.id for session in gaps.pop_over(now)]


def table_sizes(gaps: Gaps) -> tuple[int, int, int]:
    return len(gaps), len(gaps._joins), len(gaps._by_exec)


def test_gaps_are_over_in_the_order_in_which_they_fell_quiet():
    gaps = Gaps(idle_gap_s=10.0)
    for start_s, name in enumerate("abc"):
        gaps.begin(session(name), 99.0, start_s)
    assert gaps.next_over_s() == 10.0
    assert over(gaps, 11.0) == ["a", "b"]
    assert gaps.next_over_s() == 12.0
    assert over(gaps, 12.0) == ["c"]
    assert gaps.next_over_s() is None


def test_a_session_has_one_gap():
    gaps, a = Gaps(idle_gap_s=10.0), session("a")
    gaps.begin(a, 99.0, 0.0, digests=("d1",))
    gaps.begin(a, 99.0, 5.0, digests=("d2",))
    assert table_sizes(gaps) == (1, 1, 0)
    assert over(gaps, 14.0) == []
    assert over(gaps, 15.0) == ["a"]


def test_the_next_gap_to_be_over_may_be_one_with_a_tool():
    gaps = Gaps(idle_gap_s=10.0)
    gaps.begin(session("a"), 99.0, 0.0)
    gaps.observe(tool("x1", STARTED, llm_session="a"), 1.0)
    assert gaps.next_over_s() == 1.0 + TOOL_LIMIT_GAPS * 10.0
    gaps.begin(session("b"), 99.0, 95.0)
    assert gaps.next_over_s() == 101.0
    assert over(gaps, 105.0) == ["b", "a"]


def test_nothing_is_left_of_a_gap_that_is_over():
    gaps, a = Gaps(idle_gap_s=10.0), session("a")
    gaps.begin(a, 99.0, 0.0, digests=("d1", "d2", "d3"))
    gaps.observe(tool("x1", STARTED, command_digest="d1"), 1.0)
    gaps.observe(tool("x2", STARTED, llm_session="a"), 1.0)
    assert table_sizes(gaps) == (1, 3, 2)
    gaps.end(a)
    gaps.end(a)
    assert table_sizes(gaps) == (0, 0, 0)


def test_what_is_remembered_of_one_gap_is_bounded():
    gaps = Gaps(idle_gap_s=10.0)
    gaps.begin(session("a"), 99.0, 0.0, digests=tuple(f"d{number}" for number in range(1_000)))
    for number in range(1_000):
        gaps.observe(tool(f"x{number}", STARTED, llm_session="a"), 1.0)
    assert table_sizes(gaps) == (1, MAX_CLUES, MAX_RUNNING)


def test_a_run_that_nobody_could_be_told_to_own_is_nobodys_later():
    """When the one is back whose it was, the other must not get it."""
    gaps, a, b = Gaps(idle_gap_s=10.0), session("a"), session("b")
    gaps.begin(a, 99.0, 0.0, digests=("ls",))
    gaps.begin(b, 99.0, 1.0, digests=("ls",))
    assert gaps.observe(tool("x1", QUEUED, command_digest="ls"), 2.0) is None
    gaps.end(a)
    gaps.end(b)
    gaps.begin(b, 99.0, 2.5, digests=("ls",))
    assert gaps.observe(tool("x1", STARTED, command_digest="ls"), 3.0) is None
    assert gaps.observe(tool("x2", STARTED, command_digest="ls"), 3.0) is not None


def test_the_same_run_reported_twice_is_one_run():
    gaps = Gaps(idle_gap_s=10.0)
    gaps.begin(session("a"), 99.0, 0.0)
    gaps.observe(tool("x1", QUEUED, llm_session="a"), 1.0)
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
        gaps.begin(session(name), yields_after_s, 0.0)
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
    gaps.begin(session("a"), 10.0, 0.0)
    assert [gaps.ripen(now) for now in (5.0, 10.0, 10.0, 50.0)] == [False, True, False, False]


def test_a_gap_that_is_over_or_began_anew_does_not_fall_overdue_for_its_first_time():
    gaps, a, b = Gaps(idle_gap_s=100.0), session("a"), session("b")
    gaps.begin(a, 10.0, 0.0)
    gaps.begin(b, 10.0, 0.0)
    gaps.end(a)
    gaps.begin(b, 10.0, 5.0)
    assert gaps.next_overdue_s() == 15.0
    assert not gaps.ripen(14.9)
    assert overdue(gaps, 15.0) == ["b"]
    gaps.end(b)
    assert overdue(gaps, 99.0) == []


def step(gaps: Gaps, exec_id: str, phase: ToolPhase, after_s: float, now: float) -> Gap:
    """A step of one of a's tools, from which on its place is worth keeping for so long."""
    gap = gaps.observe(tool(exec_id, phase, llm_session="a"), now)
    assert gap is not None
    gaps.yield_after(gap, exec_id, after_s, now)
    return gap


def test_each_step_of_a_tool_says_anew_when_its_gap_is_overdue():
    gaps = Gaps(idle_gap_s=100.0)
    gaps.begin(session("a"), 10.0, 0.0, calls=1)
    step(gaps, "x", QUEUED, 20.0, 1.0)
    assert overdue(gaps, 20.9) == []
    assert overdue(gaps, 21.0) == ["a"]
    step(gaps, "x", STARTED, 5.0, 30.0)
    assert overdue(gaps, 34.9) == []
    assert overdue(gaps, 35.0) == ["a"]
    assert step(gaps, "x", FINISHED, 1.0, 40.0).is_return_near
    assert overdue(gaps, 40.9) == []
    assert overdue(gaps, 41.0) == ["a"]


def test_of_several_tools_the_last_one_counts():
    gaps = Gaps(idle_gap_s=100.0)
    gaps.begin(session("a"), 10.0, 0.0, calls=2)
    step(gaps, "long", STARTED, 50.0, 1.0)
    step(gaps, "short", STARTED, 5.0, 1.0)
    assert overdue(gaps, 50.9) == []
    assert overdue(gaps, 51.0) == ["a"]
    assert not step(gaps, "long", FINISHED, 99.0, 60.0).is_return_near
    assert overdue(gaps, 60.0) == ["a"]
    assert step(gaps, "short", FINISHED, 1.0, 61.0).is_return_near


def test_when_the_longest_of_several_tools_has_ended_the_others_are_overdue_already():
    gaps = Gaps(idle_gap_s=100.0)
    gaps.begin(session("a"), 10.0, 0.0, calls=2)
    step(gaps, "long", STARTED, 90.0, 1.0)
    step(gaps, "short", STARTED, 5.0, 1.0)
    assert overdue(gaps, 60.0) == []
    step(gaps, "long", FINISHED, 99.0, 60.0)
    assert gaps.next_overdue_s() == 60.0
    assert overdue(gaps, 60.0) == ["a"]


def test_a_return_is_not_near_while_calls_of_the_answer_have_not_been_seen():
    gaps = Gaps(idle_gap_s=100.0)
    gaps.begin(session("a"), 10.0, 0.0, calls=2)
    step(gaps, "x1", STARTED, 5.0, 1.0)
    assert not step(gaps, "x1", FINISHED, 5.0, 2.0).is_return_near
    step(gaps, "x2", STARTED, 5.0, 3.0)
    assert step(gaps, "x2", FINISHED, 5.0, 4.0).is_return_near


def test_steps_told_again_or_out_of_order_are_none():
    gaps = Gaps(idle_gap_s=100.0)
    gaps.begin(session("a"), 10.0, 0.0, calls=1)
    step(gaps, "x", STARTED, 5.0, 1.0)
    for phase in (STARTED, QUEUED):
        assert gaps.observe(tool("x", phase, llm_session="a"), 2.0) is None
    step(gaps, "x", FINISHED, 5.0, 3.0)
    assert gaps.observe(tool("x", FINISHED, llm_session="a"), 4.0) is None


def test_who_gave_up_its_place_is_watched_while_its_tools_are_at_work():
    gaps, a, b = Gaps(idle_gap_s=10.0), session("a"), session("b")
    gaps.begin(a, 1.0, 0.0, calls=1)
    gaps.begin(b, 1.0, 0.0, calls=1)
    step(gaps, "x", STARTED, 1.0, 0.5)
    assert overdue(gaps, 5.0) == ["b", "a"]
    gaps.give_up_place(a)
    gaps.give_up_place(b)
    assert (overdue(gaps, 6.0), len(gaps)) == ([], 1)
    gap = gaps.observe(tool("x", FINISHED), 7.0)
    assert gap is not None
    assert gap.is_return_near
    gaps.take_place(gap, 2.0, 7.0)
    assert overdue(gaps, 9.0) == ["a"]


def test_a_run_whose_gap_is_over_still_teaches_once():
    gaps, a = Gaps(idle_gap_s=10.0), session("a")
    gaps.begin(a, 99.0, 0.0, digests=("ls",))
    gaps.observe(tool("x", STARTED, command_digest="ls"), 1.0)
    gaps.end(a)
    assert gaps.observe(tool("x", FINISHED), 2.0) is None
    assert [gaps.taught_by(tool("x", FINISHED)) for _ in range(2)] == [a, None]


# -- a gateway that falls silent ------------------------------------------------------------------


def test_a_tool_keeps_its_gap_open_only_while_the_gateway_is_heard_of():
    gaps = Gaps(idle_gap_s=10.0)
    gaps.begin(session("a"), 99.0, 0.0)
    gaps.observe(tool("x", STARTED, llm_session="a"), 1.0)
    for now in (1.0, 9.0, 18.0):
        gaps.gateway_spoke(now)
    assert over(gaps, 27.9) == []
    assert gaps.next_over_s() == 28.0
    assert over(gaps, 28.0) == ["a"]


def test_a_gateway_that_speaks_keeps_no_gap_open_for_ever():
    gaps = Gaps(idle_gap_s=10.0)
    gaps.begin(session("a"), 99.0, 0.0)
    gaps.observe(tool("x", STARTED, llm_session="a"), 1.0)
    gaps.gateway_spoke(100.0)
    assert gaps.next_over_s() == 1.0 + TOOL_LIMIT_GAPS * 10.0


def test_a_place_that_is_free_for_the_asking_at_once_is_so_at_once():
    gaps = Gaps(idle_gap_s=100.0)
    gaps.begin(session("a"), 0.0, 7.0)
    assert gaps.next_overdue_s() == 7.0
    assert overdue(gaps, 7.0) == ["a"]


def test_entries_of_gaps_that_are_over_do_not_pile_up():
    """They are thrown out when their time comes, however many gaps a session had meanwhile."""
    gaps, a = Gaps(idle_gap_s=100.0), session("a")
    for second in range(1_000):
        gaps.begin(a, 10.0, float(second))
        gaps.ripen(float(second))
    assert len(gaps._ripening) <= 11

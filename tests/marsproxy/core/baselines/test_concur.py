"""Places for two agents on each backend, until the window moves."""

from typing import Any

from marsproxy.core.baselines.concur import Concur
from marsproxy.core.commands import Reason
from marsproxy.core.events import BackendObserved, BackendUnreachable, SessionEnded
from tests.marsproxy.core.baselines.books import book, goes
from tests.marsproxy.core.playbook import (
    Playbook,
    aborts,
    answers,
    arrives,
    calls_tool,
    forgotten,
    reading,
    refused,
    side_call,
    waits,
)


def two_agents(**changes: Any) -> Playbook:
    """``a`` and ``b`` generate, and there is no third place."""
    return (
        book(Concur, fallback_concurrency=2, **changes)
        .at(0, arrives("a1"), goes("a1"))
        .at(0, arrives("b1"), goes("b1"))
    )


def cache_says(usage: float, hits: int = 0) -> BackendObserved:
    """Of 1,000 tokens more than before, when read for the first time after zero."""
    return BackendObserved("gpu", kv_used_ratio=usage, prefix_queries_total=1_000, prefix_hits_total=hits)


NOTHING_YET = BackendObserved("gpu", prefix_queries_total=0, prefix_hits_total=0)


def test_an_agent_over_the_window_waits_for_another_to_be_done():
    (
        two_agents()
        .at(1, arrives("c1"), waits("c1"))
        .at(1, arrives("d1"), waits("d1", Reason.BEHIND_OTHERS, position=2))
        .at(2, answers("a1"), goes("c1"))
        .at(3, aborts("b1"), goes("d1"))
    )


def test_an_agent_keeps_its_place_through_tool_gaps():
    (
        two_agents()
        .at(1, calls_tool("a1"))
        .at(2, arrives("c1"), waits("c1"))
        .at(3, arrives("a2"), goes("a2", "continuation"))
    )


def test_the_end_of_a_session_frees_its_place():
    (
        two_agents()
        .at(1, calls_tool("a1"))
        .at(2, arrives("c1"), waits("c1"))
        .at(3, SessionEnded("a"), forgotten("a"), goes("c1"))
    )


def test_a_window_that_shrinks_pauses_agents_at_their_next_turn():
    (
        two_agents()
        .at(1, NOTHING_YET)
        .at(6, cache_says(usage=0.9))
        .at(7, calls_tool("a1"))
        .at(8, arrives("a2"), waits("a2"))
        .at(8, arrives("c1"), waits("c1", position=2))
        .at(9, calls_tool("b1"), goes("a2", "continuation"))
        .at(10, arrives("b2"), waits("b2", position=2))
        .at(11, answers("a2"), goes("b2", "continuation"))
        .at(12, answers("b2"), goes("c1"))
    )


def test_a_window_that_widens_lets_the_next_in():
    two_agents().at(1, arrives("c1"), waits("c1")).at(6, cache_says(usage=0.1), goes("c1"))


def test_a_second_turn_beside_one_in_flight_goes_whatever_the_window():
    (
        two_agents()
        .at(1, NOTHING_YET)
        .at(6, cache_says(usage=0.9))
        .at(7, arrives("a2"), goes("a2"))
        .at(7, side_call("c1"), goes("c1", "side"))
    )


def test_where_nothing_runs_somebody_may():
    """Both agents run tools for ever: a third is let in, a fourth is not."""
    (
        two_agents()
        .at(1, calls_tool("a1"))
        .at(1, calls_tool("b1"))
        .at(2, arrives("c1"), goes("c1"))
        .at(3, arrives("d1"), waits("d1"))
    )


def test_who_gives_up_waiting_is_not_let_in():
    (
        two_agents()
        .at(1, arrives("c1"), waits("c1"))
        .at(1, arrives("d1"), waits("d1", Reason.BEHIND_OTHERS, position=2))
        .at(2, aborts("c1"))
        .at(3, answers("a1"), goes("d1"))
        .at(4, answers("b1"))
    )


def test_the_bounds_of_waiting_hold():
    (
        two_agents(max_held_turns=1, max_hold_s=100.0)
        .at(1, arrives("c1"), waits("c1"))
        .at(1, arrives("d1"), refused("d1", Reason.QUEUE_FULL))
        .fires(101, refused("c1", Reason.HELD_TOO_LONG))
    )


# -- several backends -----------------------------------------------------------------------------


def two_backends() -> Playbook:
    """One place each, both taken."""
    return (
        book(Concur, fallback_concurrency=1, backends=("one", "two"))
        .at(0, arrives("a1"), goes("a1", backend="one"))
        .at(0, arrives("b1"), goes("b1", backend="two"))
    )


def test_a_new_agent_goes_where_the_first_place_is_free():
    two_backends().at(1, arrives("c1"), waits("c1")).at(2, answers("b1"), goes("c1", backend="two"))


def test_an_agent_waits_for_its_own_backend():
    (
        two_backends()
        .at(1, answers("a1"))
        .at(1, arrives("c1"), goes("c1", backend="one"))
        .at(2, arrives("a2"), waits("a2"))
        .at(3, answers("b1"))
        .at(4, answers("c1"), goes("a2", "continuation", backend="one"))
    )


def test_when_a_backend_is_gone_its_agents_go_elsewhere():
    (
        two_backends()
        .at(1, calls_tool("a1"))
        .at(2, BackendUnreachable("one"))
        .at(3, arrives("a2"), waits("a2"))
        .at(4, answers("b1"), goes("a2", "continuation", backend="two"))
        .at(5, reading(backend="one"))
        .at(6, arrives("c1"), goes("c1", backend="one"))
    )


def test_when_a_backend_is_gone_those_who_wait_for_it_wait_for_any():
    (
        two_backends()
        .at(1, answers("a1"))
        .at(1, arrives("c1"), goes("c1", backend="one"))
        .at(2, arrives("a2"), waits("a2"))
        .at(3, BackendUnreachable("one"))
        .at(4, answers("b1"), goes("a2", "continuation", backend="two"))
    )

"""Shares of replicas that part: they add up, and a policy keeps to its own."""

import pytest

from marsproxy.core.commands import Reason
from marsproxy.core.events import StandingAlone, StandingTogether, TurnResumed
from marsproxy.core.shares import Held, Shares, allowance_share
from tests.marsproxy.core.playbook import Playbook, aborts, arrives, calls_tool, full_playbook, goes, waits


def test_shares_add_up_to_the_limit() -> None:
    """Also where more is held than may be."""
    for held in ([0.0, 0.0, 0.0], [30.0, 10.0, 0.0], [100.0, 40.0, 0.0]):
        shares = [allowance_share(Held(own, sum(held)), 90.0, len(held)) for own in held]
        assert sum(shares) == pytest.approx(1.0)


def test_of_an_unknown_limit_all_have_as_much() -> None:
    assert allowance_share(Held(10.0, 30.0), None, 4) == 0.25


def test_shares_are_whole_but_for_the_time_alone() -> None:
    """And of a backend that comes meanwhile everybody has an equal part."""
    shares = Shares()
    assert (shares.is_alone, shares.tokens("gpu"), shares.sessions("gpu")) == (False, 1, 1)
    shares.part(2, {"gpu": 0.7}, {"gpu": 0.6})
    assert (shares.is_alone, shares.tokens("gpu"), shares.sessions("gpu")) == (True, 0.7, 0.6)
    assert shares.tokens("new") == 0.5
    shares.unite()
    assert (shares.is_alone, shares.tokens("gpu")) == (False, 1)


def test_alone_a_policy_keeps_to_its_share() -> None:
    """Two of four sessions are its own; of the room for two more, one is."""
    book = Playbook()
    for name in "abcd":
        book.at(1, arrives(f"{name}1"), goes(f"{name}1"))
    book.at(2, StandingAlone(2, ("c", "d"))).at(2, aborts("c1")).at(2, aborts("d1"))
    assert book.policy.budget_tokens(2) == {"gpu": pytest.approx(45_000)}
    book.at(3, arrives("e1"), goes("e1")).at(3, arrives("f1"), waits("f1"))
    book.at(4, StandingTogether(), goes("f1"))
    assert book.policy.budget_tokens(4) == {"gpu": pytest.approx(90_000)}


def test_alone_a_fixed_cap_is_shared_too() -> None:
    book = Playbook(pool_tokens=None, fallback_concurrency=4)
    book.at(1, arrives("a1"), goes("a1")).at(1, arrives("b1"), goes("b1"))
    book.at(2, StandingAlone(2, ("b",))).at(2, aborts("b1"))
    book.at(3, arrives("c1"), goes("c1"))
    book.at(3, arrives("d1"), waits("d1", Reason.TELEMETRY_UNKNOWN))


def test_alone_a_warm_session_asks_before_it_returns() -> None:
    """It may be counted by another: the same room would be promised twice."""
    book = full_playbook().at(2, calls_tool("f1"))
    book.at(3, StandingAlone(2, ("f",)))
    book.at(4, arrives("f2"), waits("f2"))


def test_a_turn_in_flight_is_counted_whether_it_fits_or_not() -> None:
    """And its session goes on as any other."""
    book = full_playbook().at(2, TurnResumed(arrives("g1"), "gpu"))
    assert book.policy.reserved_tokens(2) == {"gpu": 105_000}
    book.at(3, calls_tool("g1")).at(4, arrives("g2"), goes("g2", "continuation"))


def test_a_held_turn_that_is_resumed_in_flight_takes_its_others_along() -> None:
    book = full_playbook().at(2, arrives("g1"), waits("g1")).at(2, arrives("g2"), waits("g2", position=2))
    book.at(3, TurnResumed(arrives("g1"), "gpu"), goes("g2", "continuation"))
    assert len(book.policy.held) == 0


def test_a_turn_whose_verdict_was_lost_gets_it_again() -> None:
    book = Playbook().at(1, arrives("a1"), goes("a1"))
    book.at(2, TurnResumed(arrives("a1"), None, 1.0), goes("a1"))


def test_who_has_waited_elsewhere_is_due_earlier() -> None:
    book = full_playbook(deadline_slack=1.0)
    book.at(2, arrives("g1"), waits("g1", Reason.KV_FULL))
    book.at(3, TurnResumed(arrives("h1"), None, 60.0), waits("h1"))
    book.at(4, aborts("a1"), goes("h1"))


def test_a_turn_on_a_backend_that_is_unknown_is_nobodys() -> None:
    book = full_playbook().at(2, TurnResumed(arrives("g1"), "gone"))
    assert book.policy.open_turns == 6
    book.at(3, aborts("g1"))

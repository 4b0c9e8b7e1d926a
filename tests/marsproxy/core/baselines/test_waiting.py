"""Lanes, and who is next in them."""

from marsproxy.core.baselines.base import FollowedTurn
from marsproxy.core.baselines.waiting import WaitingAgents
from marsproxy.core.priority import TurnClass
from marsproxy.core.sessions import SessionState
from tests.marsproxy.core.playbook import arrives, session_of


def turn(turn_id: str) -> FollowedTurn:
    session = SessionState(session_of(turn_id), "", "", 0.0, 0.0)
    return FollowedTurn(arrives(turn_id), session, TurnClass.NEW, 0.0)


def test_who_was_on_a_backend_goes_there_before_who_goes_anywhere():
    waiting = WaitingAgents(["one", "two"])
    for turn_id, lane in (("a1", None), ("b1", "one"), ("c1", "one")):
        waiting.add(turn(turn_id), lane)
    assert (waiting.next_for("one"), waiting.next_for("two")) == ("b", "a")


def test_an_agent_keeps_its_place_and_takes_all_its_turns():
    waiting = WaitingAgents(["one"])
    first, second = turn("a1"), turn("a2")
    waiting.add(first, "one")
    waiting.add(turn("b1"), "one")
    waiting.add(second, None)
    assert waiting.next_for("one") == "a"
    assert waiting.pop("a") == [first, second]
    assert "a" not in waiting
    assert waiting.next_for("one") == "b"


def test_an_agent_whose_last_turn_is_gone_waits_no_more():
    waiting = WaitingAgents(["one"])
    first, second = turn("a1"), turn("a2")
    waiting.add(first, None)
    waiting.add(second, None)
    waiting.remove(first)
    assert waiting.has_before(None)
    waiting.remove(second)
    assert not waiting.has_before(None)
    assert waiting.next_for("one") is None


def test_those_of_a_lost_backend_join_the_others_at_the_end():
    waiting = WaitingAgents(["one", "two"])
    for turn_id, lane in (("a1", "one"), ("b1", None), ("c1", "one")):
        waiting.add(turn(turn_id), lane)
    waiting.unbind("one")
    order = []
    while (session_id := waiting.next_for("two")) is not None:
        waiting.pop(session_id)
        order.append(session_id)
    assert order == ["b", "a", "c"]

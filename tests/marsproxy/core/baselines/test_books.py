"""Sizes and places as the books have them. That they agree with what happened, the properties show."""

from marsproxy.core.baselines.books import Books, FollowedTurn
from marsproxy.core.events import TurnProgressed
from marsproxy.core.evidence import TurnKind
from marsproxy.core.sessions import Phase, SessionState
from marsproxy.core.settings import SessionSettings
from tests.marsproxy.core.playbook import answers, arrives, calls_tool, side_call


def opened() -> tuple[Books, SessionState, FollowedTurn]:
    books = Books(SessionSettings(), ["one", "two"])
    session = SessionState("a", "", "family", 0.0, 0.0)
    books.sessions.add(session)
    return books, session, books.open(arrives("a1", tokens=1_000), session, 0.0)


def test_a_size_is_the_estimate_then_what_was_generated_then_usage():
    books, session, turn = opened()
    assert session.context_tokens == 1_000
    books.progressed(TurnProgressed("a1", 50))
    assert session.context_tokens == 1_050
    books.learn(turn, calls_tool("a1", 1_200, completion_tokens=100))
    assert session.context_tokens == 1_300


def test_estimates_are_corrected_by_how_far_they_were_off():
    """A tenth of the way to twice as many."""
    books, session, turn = opened()
    books.learn(turn, calls_tool("a1", 2_000))
    assert books.open(arrives("a2", tokens=10_000), session, 1.0).prompt_tokens == 11_000


def test_a_history_shrinks_only_where_it_was_condensed():
    books, session, _ = opened()
    assert books.open(arrives("a2", tokens=100), session, 1.0).prompt_tokens == 1_000
    condensed = arrives("a3", tokens=100, kind=TurnKind.CONDENSED)
    assert books.open(condensed, session, 2.0).prompt_tokens == 100


def test_a_side_call_leaves_size_and_phase_alone():
    books, session, turn = opened()
    books.forwarded(turn, "one")
    side = books.open(side_call("a2"), session, 1.0)
    books.forwarded(side, "two")
    books.progressed(TurnProgressed("a2", 9_000))
    books.close(side, calls_tool("a2"), 2.0)
    assert (session.context_tokens, session.phase, session.backend) == (1_000, Phase.GENERATING, "one")


def test_a_session_is_at_work_through_its_tool_gap_and_not_after_a_text():
    books, session, turn = opened()
    books.forwarded(turn, "one")
    books.close(turn, calls_tool("a1"), 1.0)
    assert books.least_loaded() == "two"
    again = books.open(arrives("a2"), session, 2.0)
    books.forwarded(again, "one")
    books.close(again, answers("a2"), 3.0)
    assert books.least_loaded() == "one"


def test_an_unreachable_backend_is_the_last_choice():
    books, session, turn = opened()
    books.forwarded(turn, "one")
    books.backends["two"].is_reachable = False
    assert books.least_loaded() == "one"
    books.backends["one"].is_reachable = False
    assert books.home_of(session) == "two"

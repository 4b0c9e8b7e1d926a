"""What is asked of a run can fail: splits, merges, turns that broke off and commands of others are seen."""

from dataclasses import replace

import pytest

from marsproxy.core.events import Ending, ToolObserved, ToolPhase, TurnArrived, TurnEnded
from marsproxy.core.evidence import TurnKind
from tests.agents.expectations import assert_one_session_each
from tests.agents.observed import Observed, SeenSession, SeenTurn


def turn(session: str, number: int, *commands: str) -> SeenTurn:
    kind = TurnKind.CONTINUATION if number else TurnKind.FIRST
    turn_id = f"{session}-{number}"
    arrived = TurnArrived(turn_id, session, kind, "tenant", "family", 10)
    return SeenTurn(arrived, TurnEnded(turn_id, Ending.FINISHED, command_digests=commands))


def session(name: str, *commands: str) -> SeenSession:
    return SeenSession(name, None, [turn(name, n, command) for n, command in enumerate(commands)])


def run(gateway_session: str, command: str) -> ToolObserved:
    return ToolObserved("exec", ToolPhase.FINISHED, gateway_session, command_digest=command)


@pytest.fixture
def seen() -> Observed:
    """Two agents of two commands each."""
    sessions = {name: session(name, f"{name} look", f"{name} test") for name in ("one", "two")}
    return Observed(
        sessions, [run(f"g-{name}", f"{name} {what}") for what in ("look", "test") for name in sessions]
    )


def is_as_expected(seen: Observed) -> bool:
    try:
        assert_one_session_each(seen, 2, turns=2)
    except AssertionError:
        return False
    return seen.unmatched_gaps() == []


def test_two_agents(seen: Observed) -> None:
    assert is_as_expected(seen)


def test_a_split_is_seen(seen: Observed) -> None:
    moved = seen.sessions["one"].turns.pop()
    seen.sessions["three"] = SeenSession("three", None, [moved])
    assert not is_as_expected(seen)


def test_a_merge_is_seen(seen: Observed) -> None:
    seen.sessions["one"].turns += seen.sessions.pop("two").turns
    assert not is_as_expected(seen)
    assert seen.unexpected() == [("one", ["first", "continuation", "first", "continuation"])]


def test_turns_that_are_exchanged_are_seen_by_their_commands(seen: Observed) -> None:
    one, two = (seen.sessions[name].turns for name in ("one", "two"))
    one[1], two[1] = two[1], one[1]
    assert len(seen.unmatched_gaps()) == 4


def test_a_turn_that_broke_off_or_never_ended_is_seen(seen: Observed) -> None:
    last = seen.sessions["one"].turns[-1]
    assert last.ended is not None
    for ended in (replace(last.ended, ending=Ending.FAILED), None):
        last.ended = ended
        assert not is_as_expected(seen)
        assert len(seen.unfinished()) == 1


def test_a_child_is_no_agent(seen: Observed) -> None:
    seen.sessions["two"].parent = "one"
    assert not is_as_expected(seen)
    assert [each.id for each in seen.children] == ["two"]


def test_a_command_of_the_frameworks_own_is_seen_unless_it_has_such(seen: Observed) -> None:
    seen.runs.insert(1, run("g-one", "set up"))
    assert not is_as_expected(seen)
    assert seen.unmatched_gaps(has_own_commands=True) == []
    seen.runs.append(run("g-one", "two look"))
    assert len(seen.unmatched_gaps(has_own_commands=True)) == 2


def test_a_command_that_was_not_run_is_seen(seen: Observed) -> None:
    seen.runs.pop()
    assert not is_as_expected(seen)

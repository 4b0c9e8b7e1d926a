"""Many agents at once: every turn joins its own session and no two sessions merge."""

from collections import defaultdict

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from marsproxy.core.evidence import Level, TurnKind
from marsproxy.core.identity import IdentityLimits, SessionIndex
from tests.marsproxy.core.agent_fleet import (
    Agent,
    AgentAtWork,
    Fleet,
    FleetReport,
    IdsOf,
    Shape,
    header_ids,
    no_ids,
)


def fifty_agents(*, has_call_ids: bool, has_side_calls: bool) -> list[Shape]:
    """Eight start alike; each is condensed once; some drop an answer they could not read."""
    return [
        Shape(
            name=f"agent-{n}",
            turns=10 + n % 7,
            task="the same" if n < 8 else f"task {n}",
            has_call_ids=has_call_ids,
            parallel_calls=1 + n % 3,
            condense_at=5 + n % 4,
            keep_first=1 + n % 3,
            keep_last=(2 if has_call_ids else 3) + n % 5,
            drop_answers_at=frozenset({3}) if n % 5 == 0 else frozenset(),
            side_calls_at=frozenset({1, 4, 5 + n % 4}) if has_side_calls else frozenset(),
        )
        for n in range(50)
    ]


@pytest.mark.parametrize("has_call_ids", [True, False])
@pytest.mark.parametrize("ids", [no_ids, header_ids])
def test_fleet_joins_completely(ids: IdsOf, has_call_ids: bool) -> None:
    index = SessionIndex(IdentityLimits(), b"salt")
    shapes = fifty_agents(has_call_ids=has_call_ids, has_side_calls=ids is header_ids)
    report = Fleet(index, seed=7, ids=ids, failure_ratio=0.15).play(shapes)
    assert report.strays == []
    assert report.merged_sessions == []
    assert len(index) == 50
    expected_turns = sum(shape.turns for shape in shapes)
    assert sum(turn.was_answered for turn in report.main) == expected_turns
    condensed = [t for t in report.main if t.resolution.kind is TurnKind.CONDENSED]
    assert len({t.agent for t in condensed}) == 50


def test_side_calls_leave_their_sessions_alone() -> None:
    index = SessionIndex(IdentityLimits(), b"salt")
    shapes = [Shape(f"agent-{n}", 6, side_calls_at=frozenset({3, 5})) for n in range(10)]
    report = Fleet(index, seed=1, ids=header_ids).play(shapes)
    sides = [turn for turn in report.turns if turn.is_side]
    assert {turn.resolution.kind for turn in sides} == {TurnKind.SIDE}
    assert [turn.resolution.turn for turn in report.main] == [turn.turn for turn in report.main]


@pytest.mark.parametrize("calls", [True, False])
def test_levels_say_what_settled_it(calls: bool) -> None:
    index = SessionIndex(IdentityLimits(), b"salt")
    report = Fleet(index, seed=3).play([Shape("one", 5, has_call_ids=calls)])
    expected = Level.CALL_ID if calls else Level.PREFIX
    assert [t.resolution.level for t in report.main] == [Level.NEW] + [expected] * 4


def turns_by_session(report: FleetReport) -> dict[str, list[int]]:
    turns = defaultdict(list)
    for turn in report.turns:
        turns[turn.resolution.session_id].append(turn.resolution.turn)
    return turns


def test_twins_that_say_and_see_the_same_keep_to_one_session_each() -> None:
    """Nobody can tell which is which; what matters is that each session gets one of each turn."""
    index = SessionIndex(IdentityLimits(), b"salt")
    twins = [Shape(f"twin-{n}", 9, has_call_ids=False, voice="all") for n in range(8)]
    report = Fleet(index, seed=11).play(twins)
    sessions = turns_by_session(report)
    assert len(sessions) == 8
    assert all(sorted(turns) == list(range(1, 10)) for turns in sessions.values())


@st.composite
def shapes(draw: st.DrawFn, number: int) -> Shape:
    """Any agent whose turns can be known: where a rule is a guess by design, tasks differ."""
    has_call_ids = draw(st.booleans())
    drops = draw(st.frozensets(st.integers(1, 6), max_size=2))
    is_guess = 1 in drops
    condense_at = draw(st.none() | st.integers(4, 7))
    return Shape(
        name=f"agent-{number}",
        turns=draw(st.integers(1, 8)),
        task=f"task {number}" if is_guess else draw(st.sampled_from(["the same", f"task {number}"])),
        has_call_ids=has_call_ids,
        parallel_calls=draw(st.integers(1, 3)),
        condense_at=None if condense_at is not None and condense_at - 1 in drops else condense_at,
        keep_first=draw(st.integers(1, 3)),
        keep_last=draw(st.integers(2 if has_call_ids else 3, 6)),
        drop_answers_at=drops,
        side_calls_at=draw(st.frozensets(st.integers(1, 6), max_size=2)),
    )


@st.composite
def fleets(draw: st.DrawFn) -> list[Shape]:
    return [draw(shapes(number)) for number in range(draw(st.integers(1, 6)))]


@settings(max_examples=150, deadline=None)
@given(
    fleet=fleets(),
    with_ids=st.booleans(),
    order=st.lists(st.tuples(st.integers(0, 5), st.booleans()), max_size=120),
)
def test_any_interleaving_joins_every_turn(
    fleet: list[Shape], with_ids: bool, order: list[tuple[int, bool]]
) -> None:
    """``order``: who steps next, and whether what it would receive is lost."""
    index = SessionIndex(IdentityLimits(), b"salt")
    agents = [
        AgentAtWork(index, Agent(shape), header_ids if with_ids else no_ids, says_retry=n % 2 == 0)
        for n, shape in enumerate(fleet)
    ]
    rest = [(n % len(agents), False) for n in range(40 * len(agents))]
    for now, (number, fails) in enumerate([*order, *rest]):
        agent = agents[number % len(agents)]
        if not agent.is_done:
            agent.step(float(now), fails)
    report = FleetReport([turn for agent in agents for turn in agent.turns])
    assert all(agent.is_done for agent in agents)
    assert report.merged_sessions == []
    assert report.strays == []

"""The same records give the same state, and a member that is gone leaves nothing behind."""

from marsproxy.core.commands import ForwardTurn
from marsproxy.core.events import (
    BackendObserved,
    Ending,
    StandingAlone,
    StandingTogether,
    TenantLimits,
    TenantsChanged,
    TurnEnded,
    TurnResumed,
)
from marsproxy.core.evidence import AnswerEvidence, Schema, TurnEvidence, TurnKind
from marsproxy.core.identity import IdentityLimits, SessionIndex
from marsproxy.core.policy import Policy
from marsproxy.core.settings import PolicySettings
from marsproxy.core.shared_state import (
    Arrival,
    Departure,
    Happening,
    MemberAlone,
    MemberJoined,
    MemberLeft,
    Outcome,
    Resumption,
    SharedState,
)

GPU = "gpu"


def new_state() -> SharedState:
    return SharedState(Policy(PolicySettings(), (GPU,)), SessionIndex(IdentityLimits(), salt=b"salt"))


def arrival(turn_id: str, *history: bytes) -> Arrival:
    evidence = TurnEvidence(Schema.CHAT, "", history, b"", has_tools=True)
    return Arrival(turn_id, evidence, prompt_tokens_estimate=100)


def departure(turn_id: str, answer: bytes) -> Departure:
    ended = TurnEnded(turn_id, Ending.FINISHED, 100, 0, 10, tool_calls=1)
    return Departure(ended, AnswerEvidence(answer))


RECORDS: list[tuple[float, str, Happening]] = [
    (0.0, "a", MemberJoined("a")),
    (0.1, "b", MemberJoined("b")),
    (1.0, "a", BackendObserved(GPU, kv_tokens_total=100_000)),
    (2.0, "a", arrival("a.1", b"system", b"task")),
    (3.0, "a", departure("a.1", b"call")),
    (4.0, "b", arrival("b.1", b"system", b"task", b"call", b"result")),
]


def apply(state: SharedState, records: list[tuple[float, str, Happening]]) -> list[list[Outcome]]:
    return [state.apply(happening, member, now) for now, member, happening in records]


def test_a_session_goes_on_through_another_member() -> None:
    """Whoever has the turn, it is the same session, and the same budget."""
    outcomes = apply(new_state(), RECORDS)
    first, second = (each[0].resolution for each in (outcomes[3], outcomes[5]))
    assert first is not None
    assert second is not None
    assert (second.session_id, second.turn) == (first.session_id, 2)
    [forward] = outcomes[5][0].commands
    assert isinstance(forward, ForwardTurn)
    assert forward.decision == "continuation"


def test_the_same_records_give_the_same_outcomes() -> None:
    assert apply(new_state(), RECORDS) == apply(new_state(), RECORDS)


def test_the_turns_of_a_member_that_is_gone_are_over() -> None:
    """And what it tells of them later, not knowing that it is gone, changes nothing."""
    state = new_state()
    apply(state, RECORDS)
    [outcome] = state.apply(MemberLeft("b"), "a", 5.0)
    assert outcome.event == TurnEnded("b.1", Ending.ABORTED)
    assert state.policy.open_turns == 0
    assert list(state.members) == ["a"]
    assert state.apply(departure("b.1", b"late"), "b", 6.0) == []
    assert state.apply(MemberLeft("b"), "a", 7.0) == []


def test_records_of_who_is_no_member_are_not_applied() -> None:
    state = new_state()
    assert state.apply(arrival("a.1", b"system"), "a", 1.0) == []
    assert state.policy.open_turns == 0


def test_alone_the_turns_of_the_others_are_over_after_the_shares_are_cut() -> None:
    """And the others are known, and their sessions' histories."""
    state = new_state()
    apply(state, RECORDS)
    alone, ended = state.apply(MemberAlone("a"), "a", 5.0)
    session = state.policy.sessions.longest_quiet()
    assert session is not None
    assert alone.event == StandingAlone(2, (session.id,))
    assert ended.event == TurnEnded("b.1", Ending.ABORTED)
    assert (list(state.members), state.is_alone) == (["a"], True)
    [again] = state.apply(arrival("a.2", b"system", b"task", b"call", b"result"), "a", 6.0)
    assert again.resolution is not None
    assert again.resolution.session_id == session.id


def test_whoever_joins_ends_the_time_alone() -> None:
    state = new_state()
    apply(state, RECORDS)
    state.apply(MemberAlone("a"), "a", 5.0)
    assert state.apply(MemberAlone("a"), "a", 5.0) == []
    [together] = state.apply(MemberJoined("a2"), "a2", 6.0)
    assert together.event == StandingTogether()


def test_two_that_part_make_ids_of_their_own() -> None:
    ids = []
    for member in ("a", "b"):
        state = new_state()
        apply(state, RECORDS)
        state.apply(MemberAlone(member), member, 5.0)
        [outcome] = state.apply(arrival(f"{member}.9", b"other"), member, 6.0)
        assert outcome.resolution is not None
        ids.append(outcome.resolution.session_id)
    assert ids[0] != ids[1]


def test_a_turn_is_resumed_under_the_new_id_of_its_member() -> None:
    """Whether or not the former one has been given up: it is one turn."""
    state = new_state()
    apply(state, RECORDS)
    state.apply(MemberJoined("b2"), "b2", 5.0)
    told = arrival("b.1", b"system", b"task", b"call", b"result")
    [resumed] = state.apply(Resumption(told, GPU), "b2", 5.0)
    assert isinstance(resumed.event, TurnResumed)
    assert state.apply(MemberLeft("b"), "a", 6.0) == []
    assert state.apply(told, "b2", 6.0) == []
    assert state.policy.open_turns == 1
    assert len(state.apply(departure("b.1", b"done"), "b2", 7.0)) == 1


def test_a_flood_of_refused_sessions_leaves_no_trace() -> None:
    """The table of sessions is everybody's, and the oldest is forgotten where it is full."""
    state = new_state()
    state.apply(MemberJoined("m"), "m", 0.0)
    state.apply(TenantsChanged((TenantLimits("", max_open_turns=1),)), "m", 0.0)
    for number in range(100):
        state.apply(arrival(f"turn {number}", b"%d" % number), "m", 1.0)
    assert len(state.index) == 1
    for number in range(1, 100):
        state.apply(Departure(TurnEnded(f"turn {number}", Ending.FAILED)), "m", 2.0)
    state.apply(departure("turn 0", b"answer"), "m", 3.0)
    [again] = state.apply(arrival("turn 100", b"0", b"answer", b"more"), "m", 4.0)
    assert again.resolution is not None
    assert again.resolution.kind is TurnKind.CONTINUATION

"""Events in, verdicts out, and nothing kept of a turn that is over."""

import asyncio
import json
from collections.abc import Callable
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import pytest
from prometheus_client import CollectorRegistry

from marsproxy.core.commands import HintKv, Reason
from marsproxy.core.events import BackendObserved, Ending, TimerFired, ToolObserved, ToolPhase, TurnEnded
from marsproxy.core.evidence import AnswerEvidence, Schema, TurnEvidence, TurnKind
from marsproxy.core.identity import IdentityLimits, SessionIndex
from marsproxy.core.policy import Policy
from marsproxy.core.settings import AdmissionSettings, PolicySettings
from marsproxy.core.shared_state import (
    Arrival,
    Departure,
    Happening,
    MemberAlone,
    MemberJoined,
    Resumption,
    SharedState,
)
from marsproxy.dispatcher import FOLLOWER_DELAY_S, Dispatcher, Refused, Turn
from marsproxy.eventlog import EventLog, new_header
from marsproxy.hints import Hints
from marsproxy.journal import MemoryJournal, Replica
from marsproxy.log_reader import process_logs
from marsproxy.metrics import Metrics
from marsproxy.replay import replay
from marsproxy.wire.answers import AnswerRead, ToolCall
from marsproxy.wire.forms import NormalForms
from marsproxy.wire.requests import ParsedRequest, read_request

FORMS = NormalForms(seed=1)
SECRET = "what-the-prompt-says"


@dataclass
class Rig:
    """A dispatcher whose clock and timer are in the test's hands."""

    event_log: EventLog | None = None
    hints: Hints = field(default_factory=Hints)
    admission: dict[str, Any] = field(default_factory=dict)
    now: float = 100.0
    timer: tuple[float, Callable[[], None]] | None = None

    def __post_init__(self) -> None:
        settings = PolicySettings(AdmissionSettings(fallback_concurrency=1, **self.admission))
        self.metrics = Metrics(CollectorRegistry())
        self.dispatcher = Dispatcher(
            SharedState(Policy(settings, ("gpu",)), SessionIndex(IdentityLimits(), salt=b"salt")),
            lambda replica: MemoryJournal(replica, clock=lambda: self.now),
            self.metrics,
            self.event_log,
            self.hints,
            set_timer=self._set_timer,
        )

    def _set_timer(self, at_s: float, callback: Callable[[], None]) -> None:
        self.timer = (at_s, callback)

    @property
    def open_turns(self) -> int:
        return self.dispatcher.policy.open_turns

    def pass_time(self, seconds: float) -> None:
        self.now += seconds
        while self.timer is not None and self.timer[0] <= self.now:
            (_, callback), self.timer = self.timer, None
            callback()

    def gauge(self, start: str) -> float:
        page = self.metrics.render()[1].decode()
        return sum(float(line.split()[-1]) for line in page.splitlines() if line.startswith(start))


def request_of(name: str, text: str = SECRET) -> ParsedRequest:
    body = json.dumps({"session_id": name, "messages": [{"role": "user", "content": text}]}).encode()
    parsed = read_request(Schema.CHAT, [], body, tenant="", url_session=None, normal_forms=FORMS)
    assert parsed is not None
    return parsed


async def test_a_turn_that_fits_may_go_at_once() -> None:
    """Its verdict is there before anybody waits."""
    rig = Rig()
    turn = rig.dispatcher.arrive(request_of("a"))
    assert turn.verdict.result().backend == "gpu"
    assert (turn.held, turn.held_ms, rig.dispatcher.open_turns) == (None, 0, 1)
    rig.dispatcher.end(turn, Ending.FAILED, None)
    assert (rig.dispatcher.open_turns, rig.dispatcher.policy.open_turns) == (0, 0)


async def test_a_held_turn_goes_when_there_is_room() -> None:
    """And knows how long it waited."""
    rig = Rig()
    first, second = (rig.dispatcher.arrive(request_of(name)) for name in "ab")
    assert second.held is not None
    assert (second.held.reason, second.verdict.done()) == (Reason.TELEMETRY_UNKNOWN, False)
    assert rig.gauge("mars_held_turns{") == 1
    rig.pass_time(2.0)
    rig.dispatcher.end(first, Ending.ABORTED, None)
    assert second.verdict.result().turn_id == second.id
    assert (second.held, second.held_ms, rig.gauge("mars_held_turns{")) == (None, 2000, 0)
    rig.dispatcher.end(second, Ending.ABORTED, None)


async def test_a_turn_that_was_held_too_long_is_refused() -> None:
    """By the timer that the policy asked for."""
    rig = Rig(admission={"max_hold_s": 10.0})
    first, second = (rig.dispatcher.arrive(request_of(name)) for name in "ab")
    rig.pass_time(10.0)
    with pytest.raises(Refused) as refused:
        await second.verdict
    assert refused.value.reason is Reason.HELD_TOO_LONG
    rig.dispatcher.end(second, Ending.FAILED, None)
    rig.dispatcher.end(first, Ending.ABORTED, None)
    assert (rig.dispatcher.open_turns, rig.gauge("mars_held_turns{")) == (0, 0)


async def test_a_turn_given_up_while_held_is_gone() -> None:
    """Whoever waited for its verdict was cancelled."""
    rig = Rig()
    first, second = (rig.dispatcher.arrive(request_of(name)) for name in "ab")
    waiting = asyncio.get_running_loop().create_task(asyncio.wait_for(second.verdict, 5))
    await asyncio.sleep(0)
    waiting.cancel()
    await asyncio.wait((waiting,))
    assert second.verdict.cancelled()
    rig.dispatcher.end(second, Ending.ABORTED, None)
    rig.dispatcher.end(first, Ending.ABORTED, None)
    assert (rig.dispatcher.open_turns, len(rig.dispatcher.policy.held)) == (0, 0)


async def test_a_verdict_nobody_waits_for_any_more_is_not_given() -> None:
    """The room that came free just as its client left goes on to the next."""
    rig = Rig()
    turns = [rig.dispatcher.arrive(request_of(name)) for name in "abc"]
    turns[1].verdict.cancel()
    rig.dispatcher.end(turns[0], Ending.ABORTED, None)
    rig.dispatcher.end(turns[1], Ending.ABORTED, None)
    assert turns[2].verdict.done()
    rig.dispatcher.end(turns[2], Ending.ABORTED, None)


async def test_an_answer_teaches_the_policy() -> None:
    """Its usage becomes the session's context."""
    rig = Rig()
    turn = rig.dispatcher.arrive(request_of("a"))
    rig.dispatcher.end(
        turn, Ending.FINISHED, AnswerRead(AnswerEvidence(None), prompt_tokens=70, completion_tokens=30)
    )
    session = rig.dispatcher.policy.sessions.get(turn.resolution.session_id)
    assert session is not None
    assert (session.context_tokens, session.turns) == (100, 1)


async def test_a_session_that_is_over_is_forgotten_everywhere() -> None:
    """Its next turn is the first of a new one."""
    rig = Rig()
    turn = rig.dispatcher.arrive(request_of("a"))
    rig.dispatcher.end(turn, Ending.FINISHED, AnswerRead(AnswerEvidence(None), prompt_tokens=1))
    assert rig.dispatcher.end_session(turn.resolution.session_id) is True
    assert rig.dispatcher.end_session(turn.resolution.session_id) is False
    again = rig.dispatcher.arrive(request_of("a"))
    assert again.resolution.turn == 1
    rig.dispatcher.end(again, Ending.ABORTED, None)


class Heard(Hints):
    """In place of the senders."""

    def __init__(self) -> None:
        super().__init__()
        self.said: list[tuple[str, ...]] = []

    def hint(self, hint: HintKv) -> None:
        self.said.append((hint.action.value, hint.session_id, hint.backend))

    def forwarded(self, session_id: str, backend: str, *, is_side: bool) -> None:
        self.said.append(("side" if is_side else "turn", session_id, backend))

    def forget(self, session_id: str, *, tells: bool = True) -> None:
        self.said.append(("forget", session_id))


async def test_advice_is_handed_over_with_the_decision() -> None:
    """Before anybody else can run; the order is that of the policy."""
    heard = Heard()
    rig = Rig(hints=heard)
    rig.dispatcher.tell(BackendObserved("gpu", kv_tokens_total=64_000, takes_hints=True))
    turn = rig.dispatcher.arrive(request_of("a"))
    session = turn.resolution.session_id
    assert heard.said == [("turn", session, "gpu")]
    answer = AnswerRead(AnswerEvidence(None), prompt_tokens=70, completion_tokens=30)
    rig.dispatcher.end(turn, Ending.FINISHED, answer)
    rig.dispatcher.end_session(session)
    assert heard.said[-1] == ("forget", session)
    assert {word for word, *_ in heard.said} & {"release", "demote"}


async def test_the_event_log_has_counts_but_no_text(tmp_path: Path) -> None:
    """Every event and every command of it."""
    log = EventLog(tmp_path, 1_000_000, 2, new_header("mars", PolicySettings(), ["gpu"]))
    rig = Rig(event_log=log)
    rig.dispatcher.tell(BackendObserved("gpu", kv_tokens_total=1000))
    turn = rig.dispatcher.arrive(request_of("a-session-name"))
    rig.dispatcher.first_token(turn)
    rig.dispatcher.end(turn, Ending.FAILED, None)
    log.close()
    written = _read(tmp_path)
    for word in ("BackendObserved", "TurnArrived", "ForwardTurn", "TurnFirstToken", "TurnEnded"):
        assert word in written
    assert SECRET not in written
    assert "a-session-name" not in written


def _read(directory: Path) -> str:
    return "".join(path.read_text() for path in directory.iterdir())


async def test_every_decision_is_a_line(caplog: pytest.LogCaptureFixture) -> None:
    """Session, turn and reason; nothing of what was said."""
    caplog.set_level("DEBUG", "marsproxy.dispatcher")
    rig = Rig(admission={"max_held_turns": 1})
    turns = [rig.dispatcher.arrive(request_of(name)) for name in "abc"]
    ids = [turn.resolution.session_id for turn in turns]
    assert [record.getMessage() for record in caplog.records] == [
        f"session {ids[0]} turn 1 goes to gpu: new",
        f"session {ids[1]} turn 1 is held, number 1: telemetry_unknown",
        f"session {ids[2]} turn 1 is refused: queue_full",
    ]
    for turn in turns:
        rig.dispatcher.end(turn, Ending.ABORTED, None)


@pytest.mark.parametrize(("tool", "is_held"), [("terminal", True), ("finish", False)])
async def test_who_calls_the_tool_that_ends_its_work_gives_up_its_place(tool: str, is_held: bool) -> None:
    """At once: nobody is to wait until the call has gone unanswered for long."""
    rig = Rig()
    rig.dispatcher.tell(BackendObserved("gpu", kv_tokens_total=1_000_000, kv_used_ratio=0.0))
    answer = AnswerRead(
        AnswerEvidence(None),
        prompt_tokens=890_000,
        completion_tokens=10_000,
        tool_calls=(ToolCall("call_1", tool),),
    )
    first = rig.dispatcher.arrive(request_of("a"))
    rig.dispatcher.end(first, Ending.FINISHED, answer)
    second = rig.dispatcher.arrive(request_of("b"))
    assert (second.held is not None) == is_held
    rig.dispatcher.end(second, Ending.ABORTED, None)


async def test_tools_that_start_are_counted_by_what_joined_them() -> None:
    rig = Rig()
    turn = rig.dispatcher.arrive(request_of("a"))
    calls = (ToolCall("call_1", "terminal", "digest"),)
    rig.dispatcher.end(turn, Ending.FINISHED, AnswerRead(AnswerEvidence(None), tool_calls=calls))
    session_id = turn.resolution.session_id
    for phase in ToolPhase:
        rig.dispatcher.tell(ToolObserved("x1", phase, "g", llm_session=session_id))
        rig.dispatcher.tell(ToolObserved("x2", phase, "g", llm_session="theirs", tool_call_id="call_1"))
        rig.dispatcher.tell(ToolObserved("x3", phase, "g", command_digest="digest"))
        rig.dispatcher.tell(ToolObserved("x4", phase, "g", command_digest="of nobody"))
    for by in ("session_id", "call_id", "command", "none"):
        assert rig.gauge(f'mars_tool_joins_total{{by="{by}"}}') == 1


# -- replicas ---------------------------------------------------------------------------------------


class Group:
    """A journal of several members as one of them sees it. Every record is applied at once."""

    def __init__(self, replica: Replica, member: str, clock: Callable[[], float]) -> None:
        self.replica, self.member, self.leads = replica, member, True
        self.now = clock
        self.told: list[Happening] = []
        self.waiting: list[Happening] | None = None
        """What has no place in the order yet; None: everything gets it at once."""

    def append(self, happening: Happening) -> None:
        self.told.append(happening)
        if self.waiting is not None:
            self.waiting.append(happening)
            return
        self.replica.applied(happening, self.member, self.now())

    async def settle(self) -> None:
        """Everything has its place already."""


@dataclass
class Member(Rig):
    """One of several replicas, called "a"."""

    def __post_init__(self) -> None:
        settings = PolicySettings(AdmissionSettings(fallback_concurrency=2))
        self.settings = settings
        self.metrics = Metrics(CollectorRegistry())
        self.dispatcher = Dispatcher(
            self.new_state(),
            lambda replica: Group(replica, "a", lambda: self.now),
            self.metrics,
            self.event_log,
            self.hints,
            set_timer=self._set_timer,
        )
        self.group.append(MemberJoined("a"))

    def new_state(self) -> SharedState:
        return SharedState(Policy(self.settings, ("gpu",)), SessionIndex(IdentityLimits(), salt=b"salt"))

    @property
    def group(self) -> Group:
        journal = self.dispatcher.journal
        assert isinstance(journal, Group)
        return journal

    def adopt(self, state: SharedState, member: str) -> None:
        """As a journal does that has joined anew."""
        self.group.member = member
        state.apply(MemberJoined(member), member, self.now)
        self.dispatcher.adopt(state, self.now)


def evidence_of(text: str) -> TurnEvidence:
    return TurnEvidence(Schema.CHAT, "", (text.encode(),), b"", has_tools=True)


async def test_open_turns_are_told_anew_to_the_state_that_is_adopted() -> None:
    """The one in flight is counted there, nobody is forwarded twice, and who waited goes on waiting until
    there is room in that state."""
    rig = Member()
    first, second, third = (rig.dispatcher.arrive(request_of(name)) for name in "xyz")
    assert [turn.verdict.done() for turn in (first, second, third)] == [True, True, False]
    sent = first.forward
    rig.now += 5
    rig.adopt(rig.new_state(), "a2")
    assert first.forward is sent
    policy = rig.dispatcher.policy
    assert (policy.open_turns, len(policy.held), third.verdict.done()) == (3, 1, False)
    assert rig.gauge("mars_held_turns{") == 1
    rig.dispatcher.end(first, Ending.ABORTED, None)
    assert third.verdict.result().backend == "gpu"
    for turn in (second, third):
        rig.dispatcher.end(turn, Ending.ABORTED, None)
    assert (policy.open_turns, rig.dispatcher.open_turns, rig.gauge("mars_held_turns{")) == (0, 0, 0)


async def test_who_waited_keeps_its_place_in_the_state_that_is_adopted() -> None:
    rig = Member()
    turns = [rig.dispatcher.arrive(request_of(name)) for name in "xyz"]
    rig.now += 50
    rig.adopt(rig.new_state(), "a2")
    [waited] = [told.waited_s for told in rig.group.told if isinstance(told, Resumption) and not told.backend]
    assert waited == 50
    late = rig.dispatcher.arrive(request_of("late"))
    rig.dispatcher.end(turns[0], Ending.ABORTED, None)
    assert (turns[2].verdict.done(), late.verdict.done()) == (True, False)
    for turn in (*turns[1:], late):
        rig.dispatcher.end(turn, Ending.ABORTED, None)


async def test_a_turn_may_be_another_one_where_it_is_told_anew() -> None:
    """What the others know of it counts from then on."""
    rig = Member()
    turn = rig.dispatcher.arrive(request_of("x"))
    first = turn.resolution
    assert first.turn == 1
    state = rig.new_state()
    state.apply(MemberJoined("b"), "b", rig.now)
    state.apply(Arrival("b.1", request_of("x", "earlier").evidence, 1), "b", rig.now)
    ended = TurnEnded("b.1", Ending.FINISHED, 10, 0, 1)
    state.apply(Departure(ended, AnswerEvidence(b"answer")), "b", rig.now)
    rig.adopt(state, "a2")
    assert (turn.resolution.session_id, turn.resolution.kind) == (first.session_id, TurnKind.SIDE)
    rig.dispatcher.end(turn, Ending.ABORTED, None)


def finish(rig: Rig, turn: Turn) -> None:
    rig.dispatcher.end(turn, Ending.FINISHED, AnswerRead(AnswerEvidence(b"answer"), prompt_tokens=70))


async def test_a_turn_that_was_placed_without_its_replica_gets_its_verdict() -> None:
    """Its arrival was in the log when its replica, given up meanwhile, began from there."""
    rig = Member()
    rig.group.waiting = []
    turn = rig.dispatcher.arrive(request_of("x"))
    state = rig.new_state()
    state.apply(MemberJoined("a"), "a", rig.now)
    state.apply(turn.arrival, "a", rig.now)
    rig.group.waiting = None
    rig.adopt(state, "a2")
    assert turn.verdict.result().backend == "gpu"
    assert turn.resolution.turn == 1
    rig.dispatcher.end(turn, Ending.ABORTED, None)


async def test_what_ended_while_its_replica_was_alone_is_told_to_the_others() -> None:
    """A session without a name is known by its latest answer."""
    rig = Member()
    rig.group.append(MemberAlone("a"))
    turn = rig.dispatcher.arrive(request_of("x"))
    finish(rig, turn)
    rig.adopt(rig.new_state(), "a2")
    [session] = rig.dispatcher.policy.sessions
    assert (session.turns, rig.open_turns) == (1, 0)
    rig.adopt(rig.new_state(), "a3")
    assert len(list(rig.dispatcher.policy.sessions)) == 0, "what was told once is not told again"


async def test_an_end_on_its_way_finds_its_turn_in_the_adopted_state() -> None:
    rig = Member()
    turn = rig.dispatcher.arrive(request_of("x"))
    waiting: list[Happening] = []
    rig.group.waiting = waiting
    finish(rig, turn)
    rig.group.waiting = None
    rig.adopt(rig.new_state(), "a2")
    assert rig.open_turns == 1
    for happening in waiting:
        rig.group.append(happening)
    [session] = rig.dispatcher.policy.sessions
    assert (session.turns, rig.open_turns) == (1, 0)


async def test_what_ended_together_is_not_told_anew() -> None:
    rig = Member()
    finish(rig, rig.dispatcher.arrive(request_of("x")))
    rig.adopt(rig.new_state(), "a2")
    assert not any(isinstance(told, Resumption) for told in rig.group.told)


async def test_a_refused_turn_is_not_told_anew() -> None:
    rig = Member()
    turns = [rig.dispatcher.arrive(request_of(name)) for name in "xyz"]
    rig.pass_time(AdmissionSettings().max_hold_s)
    assert turns[2].is_refused
    rig.adopt(rig.new_state(), "a2")
    assert sum(isinstance(told, Resumption) for told in rig.group.told) == 2
    for turn in turns:
        rig.dispatcher.end(turn, Ending.ABORTED, None)


async def test_what_falls_due_in_the_adopted_state_is_asked_for_anew() -> None:
    """Its timer was set before anybody here heard of it."""
    rig = Member()
    state = rig.new_state()
    state.apply(MemberJoined("b"), "b", rig.now)
    for name in "xyz":
        state.apply(Arrival(f"b.{name}", evidence_of(name), 1), "b", rig.now)
    assert len(state.policy.held) == 1
    rig.adopt(state, "a2")
    rig.pass_time(AdmissionSettings().max_hold_s)
    assert len(rig.dispatcher.policy.held) == 0


async def test_who_does_not_lead_leaves_a_timer_to_the_leader_for_a_while() -> None:
    """And tells it if the leader did not."""
    rig = Member()
    rig.group.leads = False
    turns = [rig.dispatcher.arrive(request_of(name)) for name in "xyz"]
    due_s = rig.now + AdmissionSettings().max_hold_s
    assert rig.timer is not None
    assert rig.timer[0] == due_s + FOLLOWER_DELAY_S
    rig.pass_time(AdmissionSettings().max_hold_s)
    assert not turns[2].is_refused
    rig.pass_time(FOLLOWER_DELAY_S)
    assert turns[2].is_refused
    for turn in turns:
        rig.dispatcher.end(turn, Ending.ABORTED, None)


async def test_a_timer_that_the_leader_told_is_not_told_again() -> None:
    rig = Member()
    rig.group.append(MemberJoined("b"))
    rig.group.leads = False
    turns = [rig.dispatcher.arrive(request_of(name)) for name in "xyz"]
    rig.now += AdmissionSettings().max_hold_s
    rig.dispatcher.applied(TimerFired(), "b", rig.now)
    assert turns[2].is_refused
    for turn in turns:
        rig.dispatcher.end(turn, Ending.ABORTED, None)
    due = rig.timer
    assert due is not None
    rig.now = due[0] - 1
    rig.dispatcher.applied(TimerFired(), "b", rig.now)
    before = len(rig.group.told)
    rig.timer = None
    due[1]()
    assert len(rig.group.told) == before + (rig.timer is not None)


async def test_the_log_says_where_another_state_begins(tmp_path: Path) -> None:
    """A replay compares up to there and says why it stops."""
    log = EventLog(tmp_path, 1_000_000, 2, new_header("mars", PolicySettings(), ["gpu"]))
    rig = Member(event_log=log)
    turn = rig.dispatcher.arrive(request_of("x"))
    rig.adopt(rig.new_state(), "a2")
    rig.dispatcher.end(turn, Ending.ABORTED, None)
    log.close()
    [process] = process_logs(tmp_path)
    names = [type(line.entry).__name__ for line in process.entries()]
    assert names.index("StateAdopted") == names.index("TurnResumed") - 1
    result = replay(Policy(rig.settings, ("gpu",)), process.entries(), keep=1)
    assert (result.events, result.different) == (1, 0)
    assert result.stopped is not None
    assert "other replicas" in result.stopped

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
from marsproxy.core.events import BackendObserved, Ending
from marsproxy.core.evidence import AnswerEvidence, Schema
from marsproxy.core.identity import IdentityLimits, SessionIndex
from marsproxy.core.policy import Policy
from marsproxy.core.settings import AdmissionSettings, PolicySettings
from marsproxy.dispatcher import Dispatcher, Refused
from marsproxy.eventlog import EventLog, new_header
from marsproxy.hints import Hints
from marsproxy.metrics import Metrics
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
            Policy(settings, ("gpu",)),
            SessionIndex(IdentityLimits(), salt=b"salt"),
            self.metrics,
            self.event_log,
            self.hints,
            clock=lambda: self.now,
            set_timer=self._set_timer,
        )

    def _set_timer(self, at_s: float, callback: Callable[[], None]) -> None:
        self.timer = (at_s, callback)

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

    def forget(self, session_id: str) -> None:
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

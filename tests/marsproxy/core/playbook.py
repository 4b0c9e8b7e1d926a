"""A transcript of what the policy is told and what it orders, for tests that read like one.

    Playbook().at(0, arrives("a1")).at(...)

Each line is one event with *all* the commands that it must cause, so a command that nobody wrote down
fails the test. ``Playbook`` also plays the shell's part with timers: it fires ``TimerFired`` exactly
when ``SetTimer`` asked for it and at no other time. A timer that fires without consequence need not be
written; one that causes commands must be, with ``fires``.
"""

import difflib
from collections.abc import Mapping, Sequence
from dataclasses import replace
from typing import Any

from marsproxy.core.commands import (
    Command,
    ForgetSession,
    ForwardTurn,
    HintKv,
    HoldTurn,
    KvAction,
    KvLease,
    Reason,
    RejectTurn,
    SetTimer,
    YieldsTo,
)
from marsproxy.core.events import (
    BackendObserved,
    Ending,
    Event,
    TimerFired,
    ToolHostsObserved,
    ToolObserved,
    ToolPhase,
    TurnArrived,
    TurnEnded,
)
from marsproxy.core.evidence import TurnKind
from marsproxy.core.forecast import Forecast
from marsproxy.core.histogram import Curve
from marsproxy.core.learned import LearnedForecast
from marsproxy.core.policy import Policy
from marsproxy.core.sessions import SessionState
from marsproxy.core.settings import AdmissionSettings, Parts, PolicySettings, SessionSettings

POOL_TOKENS = 100_000
TURN_TOKENS = 15_000
IDLE_GAP_S = 30.0
ROUND_NUMBERS = AdmissionSettings(
    kv_target=0.9,
    growth_beta=0.0,
    peak_prior_tokens=20_000,
    peak_prior_pool_share=1.0,
    idle_gap_s=IDLE_GAP_S,
    telemetry_stale_s=1e9,
    deadline_slack=0.0,
    look_ahead=3,
    max_overtakes=4,
    fallback_concurrency=2,
)
"""No growth expected: six sessions of TURN_TOKENS fill 0.9 of the pool to the last token. Those who wait do
so in the order in which they came."""
STEADY = Parts(valve=False, correction=False)
"""The share of the pool that is promised stays, and so do those it was promised to."""


class Foretold(LearnedForecast):
    """Learns sizes like the live one, and is told the rest.

    Args:
        work_s: seconds of a family's jobs; 100 for those not named.
        gap: how long tools run, whoever calls them. By default they are back at once, so that every place
            is worth keeping for as long as is allowed.
        run: the same from their start, and ``echo`` from their end to the next turn. Default: like ``gap``.
    """

    def __init__(
        self,
        admission: AdmissionSettings = ROUND_NUMBERS,
        work_s: Mapping[str, float] | None = None,
        gap: Curve | None = None,
        run: Curve | None = None,
        echo: Curve | None = None,
    ) -> None:
        super().__init__(admission)
        self._work_s = work_s or {}
        self._run, self._echo = run, echo
        self._gap = gap or Curve((0.0, admission.idle_gap_s), (1.0, 1.0))

    def work_s(self, session: SessionState) -> float:
        return self._work_s.get(session.family, 100.0)

    def gap_curve(self, session: SessionState, signature: str | None) -> Curve:
        return self._gap

    def run_curve(self, session: SessionState, program: str | None) -> Curve:
        return self._run or self._gap

    def echo_curve(self, session: SessionState) -> Curve:
        return self._echo or self._gap


class Anything:
    """Equal to everything: for a field that is not what the test is about."""

    def __eq__(self, other: object) -> bool:
        return True

    def __hash__(self) -> int:
        return 0

    def __repr__(self) -> str:
        return "ANY"


ANY: Any = Anything()


class Playbook:
    """Feeds a policy and compares its commands, line by line."""

    def __init__(
        self,
        admission: AdmissionSettings = ROUND_NUMBERS,
        sessions: SessionSettings | None = None,
        *,
        backends: Sequence[str] = ("gpu",),
        pool_tokens: int | None = POOL_TOKENS,
        takes_hints: bool = False,
        parts: Parts = STEADY,
        tenant_weights: Mapping[str, float] | None = None,
        forecast: Forecast | None = None,
        **changes: Any,
    ) -> None:
        """``changes`` are admission settings; ``pool_tokens`` of None leaves telemetry unknown."""
        admission = replace(admission, **changes)
        settings = PolicySettings(admission, sessions or SessionSettings(), parts, tenant_weights or {})
        self.policy = Policy(settings, backends, forecast or Foretold(admission))
        self.timer_s: float | None = None
        self._now = 0.0
        self._transcript: list[str] = []
        if pool_tokens is not None:
            for name in backends:
                self.at(0, BackendObserved(name, kv_tokens_total=pool_tokens, takes_hints=takes_hints))

    def at(self, now: float, event: Event, *expected: Command) -> "Playbook":
        """``event`` happens, and exactly ``expected`` are ordered (timers aside)."""
        self._pass_time(now)
        self._compare(self._feed(event, now), expected)
        return self

    def fires(self, at_s: float, *expected: Command) -> "Playbook":
        """The armed timer comes due at exactly ``at_s`` and causes ``expected``."""
        self._pass_time(at_s, inclusive=False)
        assert self.timer_s == at_s, self._story(f"the timer is armed for {self.timer_s}, not for {at_s}")
        self.timer_s = None
        self._compare(self._feed(TimerFired(), at_s), expected)
        return self

    def quiet_until(self, now: float) -> "Playbook":
        """Time passes, timers fire, and nothing comes of it."""
        self._pass_time(now)
        return self

    def _pass_time(self, now: float, *, inclusive: bool = True) -> None:
        assert now >= self._now, "a playbook goes forward in time"
        while self.timer_s is not None and (self.timer_s < now or (inclusive and self.timer_s == now)):
            at_s, self.timer_s = max(self.timer_s, self._now), None
            self._compare(self._feed(TimerFired(), at_s), ())
        self._now = now

    def _feed(self, event: Event, now: float) -> list[Command]:
        self._now = now
        self._transcript.append(f">> {now:g} {event}")
        assert len(self._transcript) < 100_000, "the policy asks for timer after timer"
        commands = self.policy.handle(event, now)
        self._transcript += [f"   << {command}" for command in commands]
        for command in commands:
            if isinstance(command, SetTimer):
                assert command.at_s >= now, self._story("a timer was set in the past")
                self.timer_s = command.at_s
        return [command for command in commands if not isinstance(command, SetTimer)]

    def _compare(self, actual: Sequence[Command], expected: Sequence[Command]) -> None:
        if list(actual) != list(expected):
            diff = difflib.ndiff([f"{c}" for c in expected], [f"{c}" for c in actual])
            raise AssertionError(self._story("expected (-) and ordered (+):\n" + "\n".join(diff)))

    def _story(self, complaint: str) -> str:
        return "\n".join([complaint, "", "the transcript so far:", *self._transcript[-30:]])


def full_playbook(**changes: Any) -> Playbook:
    """Six sessions of 15,000 tokens each: not one more fits."""
    book = Playbook(**changes)
    for name in "abcdef":
        book.at(1, arrives(f"{name}1"), goes(f"{name}1"))
    return book


# -- words for events and commands ----------------------------------------------------------------


def session_of(turn_id: str) -> str:
    """Turns are called a1, a2, b1...: the letters are the session's name."""
    return turn_id.rstrip("0123456789")


def arrives(turn_id: str, tokens: int = TURN_TOKENS, **changes: Any) -> TurnArrived:
    return replace(
        TurnArrived(
            turn_id,
            session_id=session_of(turn_id),
            kind=TurnKind.FIRST,
            tenant="",
            family="family",
            prompt_tokens_estimate=tokens,
        ),
        **changes,
    )


def side_call(turn_id: str, **changes: Any) -> TurnArrived:
    return arrives(turn_id, tokens=100, kind=TurnKind.SIDE, has_tools=False, **changes)


def calls_tool(turn_id: str, context: int | None = TURN_TOKENS, **changes: Any) -> TurnEnded:
    """The turn finished with a tool call; ``context`` is what prompt and answer come to."""
    return replace(
        TurnEnded(
            turn_id, Ending.FINISHED, context, completion_tokens=0, tool_calls=1, tool_signature="bash"
        ),
        **changes,
    )


def answers(turn_id: str, context: int | None = TURN_TOKENS, **changes: Any) -> TurnEnded:
    """The turn finished with text alone."""
    return replace(TurnEnded(turn_id, Ending.FINISHED, context, completion_tokens=0), **changes)


def aborts(turn_id: str) -> TurnEnded:
    return TurnEnded(turn_id, Ending.ABORTED)


def fails(turn_id: str) -> TurnEnded:
    return TurnEnded(turn_id, Ending.FAILED)


def reading(pool_tokens: int | None = POOL_TOKENS, backend: str = "gpu", **changes: Any) -> BackendObserved:
    return replace(BackendObserved(backend, kv_tokens_total=pool_tokens), **changes)


def tools(in_system: int | None, cores: float | None = 4.0) -> ToolHostsObserved:
    """So many tool commands are running on all hosts together, none queued."""
    return ToolHostsObserved(cores=cores, running=in_system, queued=0)


def tool(exec_id: str, phase: ToolPhase, **changes: Any) -> ToolObserved:
    return replace(ToolObserved(exec_id, phase, gateway_session="gateway-session"), **changes)


def goes(
    turn_id: str,
    decision: str = "new",
    *,
    backend: str = "gpu",
    priority: int = ANY,
    lease: KvLease | None = None,
) -> ForwardTurn:
    """Only a new session leaves the blocks of others alone."""
    return ForwardTurn(turn_id, backend, priority, decision, decision != "new", lease)


def goes_leased(
    turn_id: str, decision: str = "new", *, backend: str = "gpu", ttl_s: float = IDLE_GAP_S
) -> ForwardTurn:
    """And its blocks are to be kept for as long as a gap may be quiet."""
    return goes(turn_id, decision, backend=backend, lease=KvLease(ttl_s, YieldsTo.RETURNING))


def waits(turn_id: str, reason: Reason = Reason.KV_FULL, position: int = 1) -> HoldTurn:
    return HoldTurn(turn_id, reason, position)


def refused(turn_id: str, reason: Reason) -> RejectTurn:
    return RejectTurn(turn_id, reason, ROUND_NUMBERS.retry_after_s)


def forgotten(session_id: str) -> ForgetSession:
    return ForgetSession(session_id)


def keeps(session_id: str, ttl_s: float = IDLE_GAP_S, backend: str = "gpu") -> HintKv:
    return HintKv(session_id, backend, KvAction.KEEP, ttl_s)


def releases(session_id: str, backend: str = "gpu") -> HintKv:
    return HintKv(session_id, backend, KvAction.RELEASE)


def demotes(session_id: str, backend: str = "gpu") -> HintKv:
    return HintKv(session_id, backend, KvAction.DEMOTE)

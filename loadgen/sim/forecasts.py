"""Forecasts that only a simulation can have: the truth, and the learned one made worse on purpose.

With the truth the policy is an oracle, the bound on what better predictions could bring. The others show
what wrong or missing predictions cost. Must not know how a policy uses them.
"""

from collections.abc import Callable, Mapping
from dataclasses import dataclass
from itertools import accumulate
from statistics import fmean

from loadgen.workload import Session
from marsproxy.core.events import ToolObserved, TurnEnded
from marsproxy.core.forecast import Forecast
from marsproxy.core.histogram import Curve, certain
from marsproxy.core.sessions import SessionState


@dataclass(frozen=True, slots=True)
class Course:
    """What a session is going to do. Turns are counted from 0."""

    peaks: list[int]
    """Of each turn, the context that the session will have when it next comes to rest."""
    gaps_s: list[float]
    """After each turn, the time until the next, on idle tool hosts."""
    work_s: float

    @classmethod
    def of(cls, session: Session, ideal_s: Callable[[Session], float]) -> "Course":
        grown = [turn.new_tokens + turn.output_tokens for turn in session.turns]
        peaks = [session.system_tokens + tokens for tokens in accumulate(grown)]
        for i in range(len(peaks) - 2, -1, -1):
            if session.turns[i].think_s is None:
                peaks[i] = peaks[i + 1]
        gaps_s = [turn.tool.traced_s if turn.tool else turn.think_s or 0.0 for turn in session.turns]
        return cls(peaks, gaps_s, ideal_s(session))


class TrueForecast:
    """Implements ``Forecast`` with the workload at hand.

    Args:
        sessions: by the id that the policy knows them by.
        ideal_s: seconds that a session's whole job takes alone on the server, without users' pauses.
    """

    def __init__(self, sessions: Mapping[str, Session], ideal_s: Callable[[Session], float]) -> None:
        self._courses = {name: Course.of(session, ideal_s) for name, session in sessions.items()}
        self._memory_mb: dict[str, list[float]] = {}
        for session in sessions.values():
            for turn in session.turns:
                if turn.tool is not None:
                    self._memory_mb.setdefault(turn.tool.name, []).append(turn.tool.memory_mb)
        self._largest_mb = {name: max(found) for name, found in self._memory_mb.items()}
        self._mean_mb = {name: fmean(found) for name, found in self._memory_mb.items()}

    def peak_tokens(self, session: SessionState, pool_tokens: int | None) -> float:
        peaks = self._courses[session.id].peaks
        return max(session.context_tokens, peaks[min(session.turns, len(peaks) - 1)])

    def work_s(self, session: SessionState) -> float:
        return self._courses[session.id].work_s

    def gap_over_probability(self, session: SessionState, signature: str | None, within_s: float) -> float:
        return float(self._gap_s(session) <= within_s)

    def gap_curve(self, session: SessionState, signature: str | None) -> Curve:
        return certain(self._gap_s(session))

    def run_curve(self, session: SessionState, program: str | None) -> Curve:
        return certain(self._gap_s(session))

    def echo_curve(self, session: SessionState) -> Curve:
        return certain(0.0)

    def memory_mb(self, signature: str | None, family: str) -> float | None:
        if signature is None:
            return max(self._largest_mb.values(), default=None)
        return self._largest_mb.get(signature)

    def memory_mean_mb(self, signature: str | None, family: str) -> float | None:
        if signature is None:
            return fmean(self._mean_mb.values()) if self._mean_mb else None
        return self._mean_mb.get(signature)

    def turn_arrived(self, session: SessionState, prompt_tokens: int, now: float) -> None: ...

    def turn_forwarded(self, session: SessionState, now: float) -> None: ...

    def turn_ended(self, session: SessionState, event: TurnEnded, now: float) -> None: ...

    def gap_ended(self, session: SessionState, signature: str | None, gap_s: float) -> None: ...

    def echo_ended(self, session: SessionState, echo_s: float) -> None: ...

    def tool_finished(self, family: str, event: ToolObserved) -> None: ...

    def session_rested(self, session: SessionState, now: float) -> None: ...

    def session_forgotten(self, session: SessionState) -> None: ...

    def _gap_s(self, session: SessionState) -> float:
        """The gap that has just begun: after the turn that finished last."""
        gaps_s = self._courses[session.id].gaps_s
        return gaps_s[min(max(session.turns, 1), len(gaps_s)) - 1]


class PassedOn:
    """Implements ``Forecast`` by asking and telling another one."""

    def __init__(self, inner: Forecast) -> None:
        self._inner = inner

    def peak_tokens(self, session: SessionState, pool_tokens: int | None) -> float:
        return self._inner.peak_tokens(session, pool_tokens)

    def work_s(self, session: SessionState) -> float:
        return self._inner.work_s(session)

    def gap_over_probability(self, session: SessionState, signature: str | None, within_s: float) -> float:
        return self._inner.gap_over_probability(session, signature, within_s)

    def gap_curve(self, session: SessionState, signature: str | None) -> Curve:
        return self._inner.gap_curve(session, signature)

    def run_curve(self, session: SessionState, program: str | None) -> Curve:
        return self._inner.run_curve(session, program)

    def echo_curve(self, session: SessionState) -> Curve:
        return self._inner.echo_curve(session)

    def memory_mb(self, signature: str | None, family: str) -> float | None:
        return self._inner.memory_mb(signature, family)

    def memory_mean_mb(self, signature: str | None, family: str) -> float | None:
        return self._inner.memory_mean_mb(signature, family)

    def turn_arrived(self, session: SessionState, prompt_tokens: int, now: float) -> None:
        self._inner.turn_arrived(session, prompt_tokens, now)

    def turn_forwarded(self, session: SessionState, now: float) -> None:
        self._inner.turn_forwarded(session, now)

    def turn_ended(self, session: SessionState, event: TurnEnded, now: float) -> None:
        self._inner.turn_ended(session, event, now)

    def gap_ended(self, session: SessionState, signature: str | None, gap_s: float) -> None:
        self._inner.gap_ended(session, signature, gap_s)

    def echo_ended(self, session: SessionState, echo_s: float) -> None:
        self._inner.echo_ended(session, echo_s)

    def tool_finished(self, family: str, event: ToolObserved) -> None:
        self._inner.tool_finished(family, event)

    def session_rested(self, session: SessionState, now: float) -> None:
        self._inner.session_rested(session, now)

    def session_forgotten(self, session: SessionState) -> None:
        self._inner.session_forgotten(session)


class ScaledForecast(PassedOn):
    """Sizes wrong by a factor: the growth still to come, and the work."""

    def __init__(self, inner: Forecast, factor: float) -> None:
        super().__init__(inner)
        self._factor = factor

    def peak_tokens(self, session: SessionState, pool_tokens: int | None) -> float:
        return max(session.context_tokens, self._factor * super().peak_tokens(session, pool_tokens))

    def work_s(self, session: SessionState) -> float:
        return self._factor * super().work_s(session)


class WithoutToolHistory(PassedOn):
    """Knows of gaps and tools no more than the priors say."""

    def gap_ended(self, session: SessionState, signature: str | None, gap_s: float) -> None: ...

    def echo_ended(self, session: SessionState, echo_s: float) -> None: ...

    def tool_finished(self, family: str, event: ToolObserved) -> None: ...


class WithoutHistory(WithoutToolHistory):
    """Never learns anything."""

    def turn_ended(self, session: SessionState, event: TurnEnded, now: float) -> None: ...

    def session_rested(self, session: SessionState, now: float) -> None: ...

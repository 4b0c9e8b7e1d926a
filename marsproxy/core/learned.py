"""What finished sessions and tools have taught: the live policy's forecast.

Owns the tables of families and tools. Sizes come from ``estimate``, durations from ``durations``;
what is done with an expectation is the policy's business.
"""

from collections import OrderedDict
from dataclasses import dataclass, field

from marsproxy.core.durations import EDGES_S, DecayedHistogram, DurationCurve
from marsproxy.core.estimate import MAX_FAMILIES, PeakEstimator
from marsproxy.core.events import ToolObserved, TurnEnded
from marsproxy.core.sessions import SessionState
from marsproxy.core.settings import AdmissionSettings

MAX_COURSES = 100_000
PSEUDO_SAMPLES = 5.0
PRIOR_WORK_S = 300.0


@dataclass(slots=True)
class Course:
    """What a session has done so far."""

    first_prompt_tokens: int
    worked_s: float = 0.0
    since_s: float | None = None
    """Since when its clock runs; None while it is held or at rest."""
    last_s: float = 0.0
    in_flight: int = 0

    def stop(self, now: float) -> None:
        if self.since_s is not None:
            self.worked_s += now - self.since_s
            self.since_s = None


@dataclass(slots=True)
class Mean:
    latest: OrderedDict[str, float] = field(default_factory=OrderedDict)
    total: float = 0.0

    def put(self, session_id: str, value: float) -> None:
        self.total += value - self.latest.pop(session_id, 0.0)
        self.latest[session_id] = value
        if len(self.latest) > 30:
            self.total -= self.latest.popitem(last=False)[1]

    def shrunk(self, prior: float) -> float:
        return (self.total + PSEUDO_SAMPLES * prior) / (len(self.latest) + PSEUDO_SAMPLES)


class LearnedForecast:
    """Implements ``Forecast``."""

    def __init__(self, settings: AdmissionSettings) -> None:
        self._settings = settings
        self._peaks = PeakEstimator()
        self._courses: OrderedDict[str, Course] = OrderedDict()
        self._work: OrderedDict[tuple[str, int] | str, Mean] = OrderedDict()
        self._all_work = Mean()
        self._gaps: OrderedDict[str | None, DecayedHistogram] = OrderedDict()
        self._memory: OrderedDict[str, float] = OrderedDict()

    def peak_tokens(self, session: SessionState, pool_tokens: int | None) -> float:
        prior = float(self._settings.peak_prior_tokens)
        if pool_tokens is not None:
            prior = min(prior, pool_tokens * self._settings.peak_prior_pool_share)
        return max(session.context_tokens, self._peaks.expected(session.family, prior))

    def work_s(self, session: SessionState) -> float:
        family = self._work.get(session.family, Mean()).shrunk(self._all_work.shrunk(PRIOR_WORK_S))
        return self._work.get(self._bucket(session), Mean()).shrunk(family)

    def _bucket(self, session: SessionState) -> tuple[str, int]:
        course = self._courses.get(session.id)
        return (session.family, 0 if course is None else course.first_prompt_tokens.bit_length())

    def gap_over_probability(self, session: SessionState, signature: str | None, within_s: float) -> float:
        return self.gap_curve(session, signature).over_within(within_s)

    def gap_curve(self, session: SessionState, signature: str | None) -> DurationCurve:
        prior = [1 - 1 / (1 + edge_s) for edge_s in EDGES_S]
        histogram = self._gaps.get(signature, DecayedHistogram())
        return DurationCurve(EDGES_S, histogram.shrunk_towards(prior, PSEUDO_SAMPLES))

    def memory_mb(self, family: str, signature: str | None) -> float | None:
        return self._memory.get(signature or "")

    def turn_arrived(self, session: SessionState, prompt_tokens: int, now: float) -> None:
        course = self._courses.get(session.id)
        if course is None:
            course = self._courses[session.id] = Course(prompt_tokens)
            if len(self._courses) > MAX_COURSES:
                self._courses.popitem(last=False)
        if not session.main_turns:
            course.stop(now)

    def turn_forwarded(self, session: SessionState, now: float) -> None:
        course = self._courses.get(session.id)
        if course is not None and course.since_s is None:
            course.since_s = now

    def turn_ended(self, session: SessionState, event: TurnEnded, now: float) -> None:
        course = self._courses.get(session.id)
        if course is not None:
            course.last_s = now

    def gap_ended(self, session: SessionState, signature: str | None, gap_s: float) -> None:
        self._gaps.setdefault(signature, DecayedHistogram()).add(gap_s)
        if len(self._gaps) > MAX_FAMILIES:
            self._gaps.popitem(last=False)

    def tool_finished(self, family: str, event: ToolObserved) -> None:
        if event.memory_peak_mb is not None:
            self._memory[event.tool_signature or ""] = event.memory_peak_mb

    def session_rested(self, session: SessionState, now: float) -> None:
        self._peaks.learn(session.family, session.id, session.peak_tokens)
        course = self._courses.get(session.id)
        if course is None:
            return
        course.stop(course.last_s)
        for key in (session.family, self._bucket(session)):
            self._work.setdefault(key, Mean()).put(session.id, course.worked_s)
        self._all_work.put(session.id, course.worked_s)

    def session_forgotten(self, session: SessionState) -> None:
        self._courses.pop(session.id, None)

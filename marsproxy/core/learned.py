"""What sessions and tools have taught so far: the live policy's forecast.

Owns what is known of each live session beyond the session table, and the priors. How a distribution is
learned is in ``lifetable`` (sizes that grow until they end) and ``histogram`` (what is measured once).
"""

from collections import OrderedDict
from dataclasses import dataclass, field

from marsproxy.core.events import ToolObserved, TurnEnded
from marsproxy.core.families import MAX_POOLS, FamilyTables, Part, Place, prompt_bucket
from marsproxy.core.histogram import Curve, log_edges
from marsproxy.core.lifetable import LifeCurve, edges, next_edge, rayleigh
from marsproxy.core.sessions import SessionState
from marsproxy.core.settings import AdmissionSettings
from marsproxy.core.toolpast import ToolPast

MAX_COURSES = 100_000
"""Sessions whose course is remembered; a policy that forgets its sessions never comes near."""
TOKEN_EDGES = edges(500, 1e6)
"""From the shortest first prompts of agents to the longest contexts that are served."""
WORK_EDGES_S = edges(1, 32_768)
"""To nine hours."""
PRIOR_WORK_S = 185.0
"""Mean job of an autonomous coding agent on a server with room (lab). With one kind of traffic it orders
nothing, whatever it is."""
GAP_EDGES_S = log_edges(-2, 4, 4)
"""10 ms, below which nothing is decided, to 2.8 h, longer than any row of the session table lives; each
1.78 times the one before."""
GAP_PRIOR = Curve(
    (0.1, 0.2, 0.5, 1, 3, 10, 30, 100, 300, 1_000),
    (0.10, 0.37, 0.50, 0.56, 0.61, 0.81, 0.91, 0.96, 0.98, 1.0),
)
"""Seconds of tool gaps, in equal parts of what the load profiles are made from: SWE-agent (p50 0.155, p90
0.395), TraceLab (p50 0.3, p90 13.6, 4.9 % above 60) and Claude Code sessions (p50 9, p90 76)."""
PAUSE_PRIOR = Curve(
    (9, 16, 31, 49, 78, 122, 179, 291, 564, 1_414, 6_565),
    (0.05, 0.10, 0.20, 0.30, 0.40, 0.50, 0.60, 0.70, 0.80, 0.90, 1.0),
)
"""Seconds until a user's next message, from the same Claude Code sessions."""
ECHO_PRIOR = Curve((0.01, 0.03, 0.1, 0.3, 1, 3, 10, 30), (0.1, 0.3, 0.6, 0.8, 0.9, 0.95, 0.98, 1.0))
"""Seconds from a tool's end to the session's next turn, chosen: what an agent's own work and the report of
the end take, and sometimes a person's yes."""
MEMORY_EDGES_MB = log_edges(0, 6, 8)
"""1 MB, an interpreter being some tens, to 1 TB; each 1.33 times the one before."""
MEMORY_PRIOR = Curve((10, 50, 300, 2_000), (0.1, 0.5, 0.9, 1.0))
"""Megabytes: the load profiles' small interpreter and their builds and test suites, both assumed, and a
tail. It tempers the first few measurements; before any, memory is unknown."""
MEMORY_SHARE = 0.95
"""Of a tool's calls, those that need no more than ``memory_mb``."""


def on_edges(prior: Curve, at: tuple[float, ...]) -> Curve:
    return Curve(at, [prior.share_within(edge) for edge in at])


@dataclass(slots=True)
class Course:
    """What a session has done so far."""

    place: Place
    first_prompt_tokens: int
    worked_s: float = 0.0
    """Until its clock last stood still."""
    since_s: float | None = None
    """Since when its clock runs: from a turn's way to the backend, through gaps, until it is held."""
    ended_at_s: float | None = None
    """When its latest turn ended."""
    reached_tokens: float = 0.0
    """Size up to which its tables know of it: its largest context since it last came to rest. After a
    return, the next edge: who comes into a bucket half way says nothing about it."""
    reached_s: float = 0.0
    """Work that its tables know of."""
    rested_at: list[tuple[Part, int]] = field(default_factory=list)
    """While at rest: where its work was told to have ended."""
    is_resting: bool = False
    is_sized: bool = False
    """It has left the bucket in which it came back, so where it rests next counts."""

    def work_s(self, now: float) -> float:
        """``now`` may be earlier than the clock's start: the end of the last turn that finished, where a
        later one was given up."""
        return self.worked_s + (0.0 if self.since_s is None else max(0.0, now - self.since_s))

    def stop(self, now: float) -> None:
        self.worked_s = self.work_s(now)
        self.since_s = None


class LearnedForecast:
    """Implements ``Forecast``."""

    def __init__(self, settings: AdmissionSettings) -> None:
        self._settings = settings
        self._courses: OrderedDict[str, Course] = OrderedDict()
        # A family of short chats says nothing about the size of agents, and reserving too little is what
        # breaks a server: each family's size starts from the prior.
        self._sizes = FamilyTables(TOKEN_EDGES, is_one_kind=False)
        self._work = FamilyTables(WORK_EDGES_S, is_one_kind=True)
        self._work_prior = rayleigh(WORK_EDGES_S, PRIOR_WORK_S)
        self._size_priors: dict[float, LifeCurve] = {}
        self._gaps = ToolPast(on_edges(GAP_PRIOR, GAP_EDGES_S))
        self._pauses = ToolPast(on_edges(PAUSE_PRIOR, GAP_EDGES_S))
        self._runs = ToolPast(on_edges(GAP_PRIOR, GAP_EDGES_S))
        self._echoes = ToolPast(on_edges(ECHO_PRIOR, GAP_EDGES_S))
        self._memory = ToolPast(on_edges(MEMORY_PRIOR, MEMORY_EDGES_MB))

    @property
    def courses(self) -> int:
        """Sessions of which something is known beyond the tables."""
        return len(self._courses)

    # -- questions --------------------------------------------------------------------------------

    def peak_tokens(self, session: SessionState, pool_tokens: int | None) -> float:
        course, prior = self._courses.get(session.id), self._size_prior(pool_tokens)
        if course is None:
            return self._sizes.curve((session.family, 0), prior).expected_of(session.context_tokens)
        size = session.context_tokens or course.first_prompt_tokens
        return self._sizes.curve(course.place, prior).expected_of(size)

    def work_s(self, session: SessionState) -> float:
        return self._work.curve(self._place(session), self._work_prior).mean

    def gap_over_probability(self, session: SessionState, signature: str | None, within_s: float) -> float:
        return self.gap_curve(session, signature).share_within(within_s)

    def gap_curve(self, session: SessionState, signature: str | None) -> Curve:
        past = self._pauses if signature is None else self._gaps
        return past.curve(session.family, signature)

    def run_curve(self, session: SessionState, program: str | None) -> Curve:
        return self._runs.curve(session.family, program)

    def echo_curve(self, session: SessionState) -> Curve:
        return self._echoes.curve(session.family, None)

    def memory_mb(self, signature: str | None, family: str) -> float | None:
        if self._memory.mean(family, signature) is None:
            return None
        return self._memory.curve(family, signature).quantile(MEMORY_SHARE)

    def memory_mean_mb(self, signature: str | None, family: str) -> float | None:
        return self._memory.mean(family, signature)

    # -- what happened ----------------------------------------------------------------------------

    def turn_arrived(self, session: SessionState, prompt_tokens: int, now: float) -> None:
        course = self._courses.get(session.id)
        if course is None:
            place = (session.family, prompt_bucket(prompt_tokens))
            self._courses[session.id] = Course(place, prompt_tokens)
            if len(self._courses) > MAX_COURSES:
                self._courses.popitem(last=False)
        elif not session.main_turns:
            course.stop(now)

    def turn_forwarded(self, session: SessionState, now: float) -> None:
        course = self._courses.get(session.id)
        if course is None:
            return
        if course.is_resting:
            self._resume(course)
        if course.since_s is None:
            course.since_s = now

    def turn_ended(self, session: SessionState, event: TurnEnded, now: float) -> None:
        course = self._courses.get(session.id)
        if course is None:
            return
        course.ended_at_s = now
        work_s, context = course.work_s(now), session.context_tokens
        for part in self._work.parts(course.place):
            part.table.grew(course.reached_s, work_s)
        course.reached_s = work_s
        if context > course.reached_tokens:
            for part in self._sizes.parts(course.place):
                part.table.grew(course.reached_tokens, context)
            course.reached_tokens = context
            course.is_sized = True

    def gap_ended(self, session: SessionState, signature: str | None, gap_s: float) -> None:
        past = self._pauses if signature is None else self._gaps
        past.add(session.family, signature, gap_s)

    def echo_ended(self, session: SessionState, echo_s: float) -> None:
        self._echoes.add(session.family, None, echo_s)

    def tool_finished(self, family: str, event: ToolObserved) -> None:
        if event.run_s is not None:
            self._runs.add(family, event.tool_signature, event.run_s)
        if event.memory_peak_mb is not None:
            self._memory.add(family, event.tool_signature, event.memory_peak_mb)

    def session_rested(self, session: SessionState, now: float) -> None:
        self._rest(session)

    def session_forgotten(self, session: SessionState) -> None:
        # An agent whose last answer calls a tool never rests. If its growth counted and its end did not,
        # sessions would be expected to grow for ever.
        self._rest(session)
        self._courses.pop(session.id, None)

    # -- parts ------------------------------------------------------------------------------------

    def _rest(self, session: SessionState) -> None:
        course = self._courses.get(session.id)
        if course is None or course.is_resting or course.ended_at_s is None:
            return
        course.is_resting = True
        course.stop(course.ended_at_s)
        if course.is_sized:
            for part in self._sizes.parts(course.place):
                part.table.ended(course.reached_tokens)
        course.reached_tokens, course.is_sized = next_edge(TOKEN_EDGES, session.context_tokens), False
        course.rested_at = [
            (part, part.table.ended(course.reached_s)) for part in self._work.parts(course.place)
        ]

    @staticmethod
    def _resume(course: Course) -> None:
        """Its work was not at its end after all. Its size was: it let go of its budget."""
        course.is_resting = False
        for part, end in course.rested_at:
            part.table.resumed(course.reached_s, end)
        course.rested_at = []

    def _place(self, session: SessionState) -> Place:
        course = self._courses.get(session.id)
        return (session.family, 0) if course is None else course.place

    def _size_prior(self, pool_tokens: int | None) -> LifeCurve:
        mean = float(self._settings.peak_prior_tokens)
        if pool_tokens is not None:
            mean = min(mean, pool_tokens * self._settings.peak_prior_pool_share)
        prior = self._size_priors.get(mean)
        if prior is None:
            if len(self._size_priors) >= MAX_POOLS:
                self._size_priors.clear()
            prior = self._size_priors[mean] = rayleigh(TOKEN_EDGES, mean)
        return prior

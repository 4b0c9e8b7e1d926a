"""Sessions between two turns, and how long to wait for the next one.

A gap is over when nothing was heard for ``idle_gap_s``. A tool seen at the gateway is something heard:
while it waits or runs the gap stays open as long as the gateway is heard of, and the quiet time starts anew
when it has finished. A gateway that has fallen silent is no sign of life any more.

Before that a gap may fall *overdue*: it has lasted for longer than keeping its session's place is worth,
so the place goes to the first who asks for it; until somebody does, nothing happens. Each step of a tool
says anew how long that is, and of several tools the one that may take longest counts. A session that gave
up its place is watched all the same while its tools are at work: when they end it is about to return.

Knows nothing of budgets; whether a session in a gap is counted is the policy's business, and so is how
long its place is worth keeping.
"""

import heapq
from collections import OrderedDict
from collections.abc import Iterator
from dataclasses import dataclass, field
from math import inf

from marsproxy.core.events import ToolObserved, ToolPhase
from marsproxy.core.sessions import SessionState
from marsproxy.core.tool_joins import JoinedBy, ToolJoins

TOOL_LIMIT_GAPS = 10
"""A tool that never reports its end keeps a gap open for this many ``idle_gap_s``: twenty minutes by
default, longer than nearly every tool call and short enough to lose."""
MAX_RUNNING = 64
"""Tool runs remembered per gap."""
MAX_LATE_RUNS = 4_096
"""Runs of gaps that are over: their ends still teach. A batch of reports has at most some hundreds."""
MAX_STRANGERS = 4_096
"""Runs that nobody waited for when they were first seen, and that are therefore nobody's later."""


@dataclass(slots=True)
class Run:
    phase: ToolPhase
    joined_by: JoinedBy
    yields_s: float = 0.0
    """When the place is overdue as far as this run goes."""


@dataclass(slots=True)
class Gap:
    session: SessionState
    since_s: float
    """Last sign of life: the turn's end, a tool's end, or the start of what is running now."""
    calls_left: int
    """Of the answer's tool calls, those of which nothing was seen yet."""
    yields_after_s: float | None
    """From its beginning, and again when one of its tools has ended and others are still to come. None: it
    has no place to yield."""
    runs: dict[str, Run] = field(default_factory=dict)
    """Tool runs that wait or are under way, by id."""
    tools_ended_s: float | None = None
    """When the last of its tools ended; None before, or while another is at work."""
    number: int = 0
    """Of its latest entry among those that will be overdue; an older entry is void. -1: it has none."""

    @property
    def is_at_work(self) -> bool:
        return bool(self.runs)

    @property
    def is_return_near(self) -> bool:
        """All tools that were asked for, as far as they are seen here, have ended."""
        return self.tools_ended_s is not None and self.calls_left == 0


class Gaps:
    """At most one gap per session; both queues are in order of ``since_s``, because time only goes on."""

    def __init__(self, idle_gap_s: float) -> None:
        self._idle_gap_s = idle_gap_s
        self._quiet: OrderedDict[str, Gap] = OrderedDict()
        self._working: OrderedDict[str, Gap] = OrderedDict()
        self._heard_s: float | None = None
        """When a gateway last told of its hosts; None if none ever did, and then its silence says nothing."""
        self._ripening: list[tuple[float, int, Gap]] = []
        """A heap of when gaps fall overdue. Void entries are left until they come up."""
        self._overdue: OrderedDict[str, Gap] = OrderedDict()
        self._ripened = 0
        """Entries made so far."""
        self._joins = ToolJoins()
        self._by_exec: dict[str, Gap] = {}
        self._late: OrderedDict[str, SessionState] = OrderedDict()
        self._strangers: OrderedDict[str, None] = OrderedDict()

    def __len__(self) -> int:
        return len(self._quiet) + len(self._working)

    def begin(
        self,
        session: SessionState,
        yields_after_s: float | None,
        now: float,
        *,
        calls: int = 0,
        call_ids: tuple[str, ...] = (),
        digests: tuple[str, ...] = (),
    ) -> None:
        self.end(session)
        gap = Gap(session, now, max(calls, len(digests)), yields_after_s)
        self._quiet[session.id] = gap
        self._ripen_after(gap, yields_after_s, now)
        self._joins.expect(session, call_ids, digests)

    def end(self, session: SessionState) -> Gap | None:
        """The next turn came, or nobody waits for it any more. Fine without a gap."""
        gap = self._quiet.pop(session.id, None) or self._working.pop(session.id, None)
        if gap is not None:
            self._forget_overdue(gap)
            self._joins.forget(session)
            for exec_id in gap.runs:
                del self._by_exec[exec_id]
                self._late[exec_id] = session
                if len(self._late) > MAX_LATE_RUNS:
                    self._late.popitem(last=False)
        return gap

    def give_up_place(self, session: SessionState) -> None:
        """It has no place to yield any more. While its tools are at work it is watched all the same."""
        gap = self._working.get(session.id)
        if gap is None:
            self.end(session)
        else:
            gap.yields_after_s = None
            self._forget_overdue(gap)

    def left_s(self, session: SessionState, now: float) -> float:
        """Seconds until the session's gap is over if nothing more is heard; 0 if it is in none."""
        if (gap := self._quiet.get(session.id)) is not None:
            return max(0.0, gap.since_s + self._idle_gap_s - now)
        if (gap := self._working.get(session.id)) is not None:
            return max(0.0, self._working_until_s(gap) - now)
        return 0.0

    def is_overdue(self, session: SessionState) -> bool:
        return session.id in self._overdue

    # -- tools ------------------------------------------------------------------------------------

    def gateway_spoke(self, now: float) -> None:
        self._heard_s = now

    def observe(self, event: ToolObserved, now: float) -> Gap | None:
        """The gap that the step is one of. A run belongs to the gap in which it was first seen, and to no
        later one; a step that is told again, or out of order, is none."""
        gap = self._by_exec.get(event.exec_id)
        if gap is None:
            found = self._first_seen(event)
            if found is None:
                return None
            gap, joined_by = found
            self._tool_began(gap, Run(event.phase, joined_by), event.exec_id, now)
            return gap
        run = gap.runs[event.exec_id]
        if event.phase is ToolPhase.FINISHED:
            self._tool_finished(gap, event.exec_id, now)
            return gap
        if run.phase is ToolPhase.STARTED or event.phase is ToolPhase.QUEUED:
            return None
        run.phase, gap.since_s = event.phase, now
        self._working.move_to_end(gap.session.id)
        return gap

    def joined_by(self, exec_id: str) -> JoinedBy | None:
        """What joined a run that waits or is under way; None if it belongs to no gap."""
        gap = self._by_exec.get(exec_id)
        return None if gap is None else gap.runs[exec_id].joined_by

    def session_of(self, exec_id: str) -> str | None:
        """Whose that run is, by the session's id."""
        gap = self._by_exec.get(exec_id)
        return None if gap is None else gap.session.id

    def taught_by(self, event: ToolObserved) -> SessionState | None:
        """Whose run it was that ended after its gap was over."""
        return self._late.pop(event.exec_id, None)

    def yield_after(self, gap: Gap, exec_id: str, after_s: float, now: float) -> None:
        """So long after this step of a tool the place is overdue, as far as the tool goes."""
        if gap.yields_after_s is None:
            return
        if (run := gap.runs.get(exec_id)) is not None:
            run.yields_s = now + after_s
        if gap.runs:
            after_s = max(0.0, max(each.yields_s for each in gap.runs.values()) - now)
        if after_s > 0:
            self._overdue.pop(gap.session.id, None)
        if gap.session.id not in self._overdue:
            self._ripen_after(gap, after_s, now)

    def take_place(self, gap: Gap, after_s: float, now: float) -> None:
        """A gap that had none has a place to yield again."""
        gap.yields_after_s = after_s
        self._ripen_after(gap, after_s, now)

    # -- time -------------------------------------------------------------------------------------

    def ripen(self, now: float) -> bool:
        """Gaps whose time has come fall overdue. Whether there were any."""
        before = len(self._overdue)
        while self._ripening and self._ripening[0][0] <= now:
            _, number, gap = heapq.heappop(self._ripening)
            if gap.number == number:
                self._overdue[gap.session.id] = gap
        return len(self._overdue) > before

    def overdue(self) -> Iterator[SessionState]:
        """Sessions whose place is free for the asking, the longest overdue first."""
        return (gap.session for gap in self._overdue.values())

    def next_overdue_s(self) -> float | None:
        while self._ripening and self._ripening[0][2].number != self._ripening[0][1]:
            heapq.heappop(self._ripening)
        return self._ripening[0][0] if self._ripening else None

    def pop_over(self, now: float) -> Iterator[SessionState]:
        """Sessions whose gap is over; it is closed as they are handed out."""
        while (gap := _first(self._quiet)) is not None and gap.since_s + self._idle_gap_s <= now:
            self.end(gap.session)
            yield gap.session
        while (gap := _first(self._working)) is not None and self._working_until_s(gap) <= now:
            self.end(gap.session)
            yield gap.session

    def next_over_s(self) -> float | None:
        quiet, working = _first(self._quiet), _first(self._working)
        quiet_s = inf if quiet is None else quiet.since_s + self._idle_gap_s
        working_s = inf if working is None else self._working_until_s(working)
        first_s = quiet_s if quiet_s < working_s else working_s
        return None if first_s == inf else first_s

    # -- parts ------------------------------------------------------------------------------------

    def _working_until_s(self, gap: Gap) -> float:
        limit_s = gap.since_s + TOOL_LIMIT_GAPS * self._idle_gap_s
        if self._heard_s is None:
            return limit_s
        return min(limit_s, max(gap.since_s, self._heard_s) + self._idle_gap_s)

    def _first_seen(self, event: ToolObserved) -> tuple[Gap, JoinedBy] | None:
        if event.phase is ToolPhase.FINISHED:
            return None
        if event.llm_session is not None:
            gap = self._gap_of(event.llm_session)
            if gap is not None and len(gap.runs) < MAX_RUNNING:
                self._joins.proven(event, gap.session)
                return gap, JoinedBy.SESSION_ID
            return None
        if event.exec_id in self._strangers:
            return None
        found = self._joins.try_find(event)
        gap = None if found is None else self._gap_of(found[0].id)
        if found is None or gap is None or len(gap.runs) >= MAX_RUNNING:
            self._note_stranger(event.exec_id)
            return None
        return gap, found[1]

    def _gap_of(self, session_id: str) -> Gap | None:
        return self._quiet.get(session_id) or self._working.get(session_id)

    def _note_stranger(self, exec_id: str) -> None:
        self._strangers[exec_id] = None
        if len(self._strangers) > MAX_STRANGERS:
            self._strangers.popitem(last=False)

    def _tool_began(self, gap: Gap, run: Run, exec_id: str, now: float) -> None:
        if not gap.runs:
            self._move(gap, self._quiet, self._working, now)
        gap.runs[exec_id] = run
        gap.calls_left = max(0, gap.calls_left - 1)
        gap.tools_ended_s = None
        self._by_exec[exec_id] = gap

    def _tool_finished(self, gap: Gap, exec_id: str, now: float) -> None:
        del self._by_exec[exec_id], gap.runs[exec_id]
        if not gap.runs:
            gap.tools_ended_s = now
            self._move(gap, self._working, self._quiet, now)

    def _ripen_after(self, gap: Gap, after_s: float | None, now: float) -> None:
        if after_s is not None:
            self._ripened += 1
            gap.number = self._ripened
            heapq.heappush(self._ripening, (now + after_s, gap.number, gap))

    def _forget_overdue(self, gap: Gap) -> None:
        gap.number = -1
        self._overdue.pop(gap.session.id, None)

    @staticmethod
    def _move(gap: Gap, source: OrderedDict[str, Gap], target: OrderedDict[str, Gap], now: float) -> None:
        target[gap.session.id] = source.pop(gap.session.id)
        gap.since_s = now


def _first(queue: OrderedDict[str, Gap]) -> Gap | None:
    return next(iter(queue.values()), None)

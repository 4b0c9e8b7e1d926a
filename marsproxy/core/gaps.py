"""Sessions between two turns, and how long to wait for the next one.

A gap is over when nothing was heard for ``idle_gap_s``. A tool seen at the gateway is something heard:
while it waits or runs the gap stays open, and the quiet time starts anew when it has finished.

Before that a gap may fall *overdue*: it has lasted for longer than keeping its session's place is worth,
so the place goes to the first who asks for it; until somebody does, nothing happens. A tool that ends
announces the return, so the gap is not overdue any more.

Knows nothing of budgets; whether a session in a gap is counted is the policy's business.
"""

import heapq
from collections import OrderedDict
from collections.abc import Iterator
from dataclasses import dataclass, field
from itertools import count
from math import inf

from marsproxy.core.events import ToolObserved, ToolPhase
from marsproxy.core.sessions import SessionState

TOOL_LIMIT_GAPS = 10
"""A tool that never reports its end keeps a gap open for this many ``idle_gap_s``: twenty minutes by
default, longer than nearly every tool call and short enough to lose."""
MAX_DIGESTS = 16
"""Commands of one answer that are looked out for; answers with more parallel calls are rare."""
MAX_RUNNING = 64
"""Tool runs remembered per gap."""


@dataclass(slots=True)
class Gap:
    session: SessionState
    since_s: float
    """Last sign of life: the turn's end, a tool's end, or the start of what is running now."""
    digests: set[str]
    """Commands asked for and not yet seen to start."""
    yields_after_s: float | None
    """From its beginning, or from the end of its tools. None: it has no place to yield."""
    running: set[str] = field(default_factory=set)
    """Ids of the tool runs under way."""
    number: int = 0
    """Of its latest entry among those that will be overdue; an older entry is void. -1: it is over."""


class Gaps:
    """At most one gap per session; both queues are in order of ``since_s``, because time only goes on."""

    def __init__(self, idle_gap_s: float) -> None:
        self._idle_gap_s = idle_gap_s
        self._quiet: OrderedDict[str, Gap] = OrderedDict()
        self._working: OrderedDict[str, Gap] = OrderedDict()
        self._ripening: list[tuple[float, int, Gap]] = []
        """A heap of when gaps fall overdue. Void entries are left until they come up."""
        self._overdue: OrderedDict[str, Gap] = OrderedDict()
        self._numbers = count()
        self._by_digest: dict[str, OrderedDict[str, Gap]] = {}
        """Those that wait for a command, first come first: a common one has thousands, and the first of a
        plain dict is found ever later as those before it go."""
        self._by_exec: dict[str, Gap] = {}

    def __len__(self) -> int:
        return len(self._quiet) + len(self._working)

    def begin(
        self,
        session: SessionState,
        command_digests: tuple[str, ...],
        yields_after_s: float | None,
        now: float,
    ) -> None:
        self.end(session)
        gap = Gap(session, now, set(command_digests[:MAX_DIGESTS]), yields_after_s)
        self._quiet[session.id] = gap
        self._ripen_later(gap, now)
        for digest in gap.digests:
            self._by_digest.setdefault(digest, OrderedDict())[session.id] = gap

    def end(self, session: SessionState) -> None:
        """The next turn came, or nobody waits for it any more. Fine without a gap."""
        gap = self._quiet.pop(session.id, None) or self._working.pop(session.id, None)
        if gap is not None:
            gap.number = -1
            self._overdue.pop(session.id, None)
            for digest in gap.digests:
                self._unlist(digest, session.id)
            for exec_id in gap.running:
                del self._by_exec[exec_id]

    def left_s(self, session: SessionState, now: float) -> float:
        """Seconds until the session's gap is over if nothing more is heard; 0 if it is in none."""
        for queue, limit_s in self._queues():
            if (gap := queue.get(session.id)) is not None:
                return max(0.0, gap.since_s + limit_s - now)
        return 0.0

    def observe(self, event: ToolObserved, now: float) -> SessionState | None:
        """A tool run belongs to the gap in which it was first seen, and to no later one.

        Returns the session whose tool has finished with this, if any.
        """
        if event.phase is ToolPhase.FINISHED:
            return self._tool_finished(event.exec_id, now)
        if event.exec_id not in self._by_exec and (gap := self._gap_of(event)) is not None:
            self._tool_began(gap, event, now)
        return None

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
        for queue, limit_s in self._queues():
            while queue and (gap := next(iter(queue.values()))).since_s + limit_s <= now:
                self.end(gap.session)
                yield gap.session

    def next_over_s(self) -> float | None:
        quiet_s = self._oldest_s(self._quiet) + self._idle_gap_s
        working_s = self._oldest_s(self._working) + TOOL_LIMIT_GAPS * self._idle_gap_s
        first_s = quiet_s if quiet_s < working_s else working_s
        return None if first_s == inf else first_s

    @staticmethod
    def _oldest_s(queue: OrderedDict[str, Gap]) -> float:
        return next(iter(queue.values())).since_s if queue else inf

    def _queues(self) -> tuple[tuple[OrderedDict[str, Gap], float], ...]:
        return (self._quiet, self._idle_gap_s), (self._working, TOOL_LIMIT_GAPS * self._idle_gap_s)

    def _gap_of(self, event: ToolObserved) -> Gap | None:
        """By the session's id if the caller knew it, else the first that waits for this very command."""
        if event.llm_session is not None:
            return self._quiet.get(event.llm_session) or self._working.get(event.llm_session)
        waiting = self._by_digest.get(event.command_digest or "")
        return None if waiting is None else next(iter(waiting.values()))

    def _tool_began(self, gap: Gap, event: ToolObserved, now: float) -> None:
        if len(gap.running) >= MAX_RUNNING:
            return
        if event.command_digest in gap.digests:
            gap.digests.remove(event.command_digest)
            self._unlist(event.command_digest, gap.session.id)
        if not gap.running:
            self._move(gap, self._quiet, self._working, now)
        gap.running.add(event.exec_id)
        self._by_exec[event.exec_id] = gap

    def _tool_finished(self, exec_id: str, now: float) -> SessionState | None:
        if (gap := self._by_exec.pop(exec_id, None)) is None:
            return None
        gap.running.remove(exec_id)
        if not gap.running:
            self._move(gap, self._working, self._quiet, now)
            self._overdue.pop(gap.session.id, None)
            self._ripen_later(gap, now)
        return gap.session

    def _ripen_later(self, gap: Gap, now: float) -> None:
        if gap.yields_after_s is None:
            return
        gap.number = next(self._numbers)
        heapq.heappush(self._ripening, (now + gap.yields_after_s, gap.number, gap))

    @staticmethod
    def _move(gap: Gap, source: OrderedDict[str, Gap], target: OrderedDict[str, Gap], now: float) -> None:
        target[gap.session.id] = source.pop(gap.session.id)
        gap.since_s = now

    def _unlist(self, digest: str, session_id: str) -> None:
        waiting = self._by_digest[digest]
        del waiting[session_id]
        if not waiting:
            del self._by_digest[digest]

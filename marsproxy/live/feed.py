"""What the live page is sent: one whole view, then what has changed, at most five times a second.

Theory of operation. There is no task: whoever is subscribed asks at its own pace, and the first to ask after
``INTERVAL_S`` makes the next change for all. The latest changes are kept, so one that fell a little behind
gets all of them, and one that fell far behind gets a whole view again. While nobody is subscribed nothing is
made or kept.
"""

import time
from collections import deque
from collections.abc import Callable
from typing import Any

import msgspec

from marsproxy.core.scheduling import SchedulingPolicy
from marsproxy.live.story import State
from marsproxy.live.view import backend_rows, held_rows, host_rows, is_shown, lane, session_row
from marsproxy.live.watch import Watch
from marsproxy.live.words import kind_of, sentence

INTERVAL_S = 0.2
"""Five a second: as fast as anybody reads, and a fifth of what headroom is read at."""
MAX_KEPT = 25
"""Changes: five seconds of them."""
MAX_NEW_DECISIONS = 12
"""In one change; more nobody can read."""
SHOWN_DECISIONS = 40


class Feed:
    """
    Args:
        policy: as it is now; another state may be adopted.
        now: the clock of everything that is told.
    """

    def __init__(
        self,
        watch: Watch,
        policy: Callable[[], SchedulingPolicy],
        *,
        stale_s: float,
        now: Callable[[], float],
        wall_clock: Callable[[], float] = time.time,
    ) -> None:
        self._watch = watch
        self._policy = policy
        self._stale_s = stale_s
        self._now = now
        self._wall_clock = wall_clock
        self._encode = msgspec.json.Encoder().encode
        self._parts: dict[str, Any] = {}
        """As they were told last."""
        self._shown: dict[str, list[Any]] = {}
        """Session rows, the same."""
        self._told_decision = 0
        self._made_s = 0.0
        self._kept: deque[tuple[int, bytes]] = deque(maxlen=MAX_KEPT)
        self._whole: bytes | None = None
        self.seq = 0
        self.subscribers = 0

    # -- who looks --------------------------------------------------------------------------------

    def subscribe(self) -> None:
        self.subscribers += 1
        if self.subscribers == 1:
            self._begin()

    def leave(self) -> None:
        self.subscribers -= 1
        if not self.subscribers:
            self._watch.changed = None
            self._shown, self._parts, self._whole = {}, {}, None
            self._kept.clear()

    def whole(self) -> bytes:
        """Everything as of ``seq``, as JSON. Some ten milliseconds for 2,000 sessions, once a change."""
        if self._whole is None:
            now, logs = self._now(), self._watch.stories
            rows = []
            for session_id, row in self._shown.items():
                log = logs.get(session_id)
                rows.append(row if log is None else [*row, lane(log, now)])
            decisions = list(self._watch.decisions)[-SHOWN_DECISIONS:]
            self._whole = self._encode(
                {**self._frame(now), **self._parts, "sessions": rows, "decisions": self._said(decisions, now)}
            )
        return self._whole

    def changes_since(self, seq: int) -> list[bytes] | None:
        """What came after that one, oldest first; None if some of it is not kept any more."""
        self._poll()
        if seq == self.seq:
            return []
        if not self._kept or self._kept[0][0] > seq + 1:
            return None
        return [change for number, change in self._kept if number > seq]

    # -- what there is ----------------------------------------------------------------------------

    def _begin(self) -> None:
        now, policy = self._now(), self._policy()
        self._watch.changed = {}
        self._reconcile(policy, (session_id for session_id, _ in self._watch.stories.items()))
        for session_id, log in self._watch.stories.items():
            if is_shown(log, now):
                self._shown[session_id] = session_row(session_id, log, policy)
        self._parts = self._parts_now(policy, now)
        self._told_decision, self._made_s = self._watch.decided, now
        self._watch.changed = {}

    def _poll(self) -> None:
        now = self._now()
        if 0 <= now - self._made_s < INTERVAL_S * 0.95:
            return
        self._made_s = now
        change = self._change(now)
        if change:
            self.seq += 1
            self._whole = None
            self._kept.append((self.seq, self._encode({**self._frame(now), **change})))

    def _change(self, now: float) -> dict[str, Any]:
        """Only what is different from what was told last."""
        policy, watch = self._policy(), self._watch
        in_gap = [session_id for session_id, row in self._shown.items() if row[1] == State.TOOL]
        self._reconcile(policy, in_gap)
        changed, watch.changed = watch.changed or {}, {}
        parts = self._parts_now(policy, now)
        change = {name: part for name, part in parts.items() if part != self._parts.get(name)}
        self._parts = parts
        if rows := self._changed_rows(changed, policy, now):
            change["sessions"] = rows
        if gone := self._no_longer_shown(now):
            change["gone"] = gone
        new = [] if watch.decided == self._told_decision else list(watch.decisions)
        new = [each for each in new if each[0] > self._told_decision]
        self._told_decision = watch.decided
        if new:
            change["decisions"] = self._said(new[-MAX_NEW_DECISIONS:], now)
        return change

    def _changed_rows(
        self, changed: dict[str, None], policy: SchedulingPolicy, now: float
    ) -> list[list[Any]]:
        rows = []
        for session_id in changed:
            log = self._watch.stories.get(session_id)
            if log is None or not is_shown(log, now):
                continue
            row = session_row(session_id, log, policy)
            if row != self._shown.get(session_id):
                self._shown[session_id] = row
                rows.append(row)
        return rows

    def _no_longer_shown(self, now: float) -> list[str]:
        gone = []
        for session_id in self._shown:
            log = self._watch.stories.get(session_id)
            if log is None or not is_shown(log, now):
                gone.append(session_id)
        for session_id in gone:
            del self._shown[session_id]
        return gone

    def _reconcile(self, policy: SchedulingPolicy, session_ids: Any) -> None:
        """Places are lost by time alone, and what is waited for is found only by looking."""
        changed = self._watch.changed
        for session_id in session_ids:
            log = self._watch.stories.get(session_id)
            session = policy.sessions.get(session_id)
            if log is not None and self._watch.note_loss(session, log) and changed is not None:
                changed[session_id] = None

    def _parts_now(self, policy: SchedulingPolicy, now: float) -> dict[str, Any]:
        return {
            "backends": backend_rows(policy, self._watch, now, self._stale_s),
            "hosts": host_rows(policy, now, self._stale_s),
            "held": held_rows(policy, self._watch),
            "held_total": len(policy.held),
            "times": self._watch.times.of_late(now),
        }

    def _frame(self, now: float) -> dict[str, Any]:
        return {"seq": self.seq, "now": round(now, 3), "wall": round(self._wall_clock(), 3)}

    def _said(self, decisions: list[Any], now: float) -> list[dict[str, Any]]:
        offset_s = self._wall_clock() - now
        said = []
        for number, session_id, entry in decisions:
            at, kind, words = round(entry.at_s + offset_s, 3), kind_of(entry), sentence(entry)
            said.append({"n": number, "session": session_id, "at": at, "kind": kind, "words": words})
        return said

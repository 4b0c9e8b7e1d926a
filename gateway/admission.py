"""Who may start now on one host: a queue in front of its CPU slots and its memory.

Owns what waits and the order in which it starts; it must not know processes, clocks or asyncio. Time is an
argument, in seconds on any monotonic clock.

Theory of operation. An ask is *offered* once and *ended* once; between, it waits or holds what it got.
What is granted is taken in the same breath: whoever is told to start already holds it. After each event the
queue is gone through until nothing that waits may start.

*Slots.* An ask takes ``cpu`` of them. Where others load the host too, measured, there are fewer.

*Memory.* What runs has reserved what was asked or predicted, or what it uses if that is more. Reservations
stay within what the host has, less headroom, less what others use. Of a host that tells nothing, half. High
memory pressure holds all starts but those of the short lane, never for ever (``host_load``).

*One may always run.* With nothing else in its lane a command needs neither slots nor memory: no prediction
larger than the host and no brake keeps a host idle.

*Turns.* Tenants take turns, and the sessions of each, by priority (``turns``). While the one whose turn it is
does not fit, others that do may pass it, for ``_PATIENCE_S``; then nothing does until it has started. So what
is wide or large neither starves nor keeps a host idle for as long as the longest command takes.

*Short lane.* What is expected to be over within ``short_s`` has places beyond the slots, and memory of its
own, so that it never waits behind a build. One that takes longer after all is charged like any other from
then on, and while that makes more than there are slots, the lane has so much less room: slots and places
together are never exceeded. A short one may have free slots too, after the others.

*Families.* A command that waits for a nested one keeps its slots meanwhile. So a session may borrow those
that others of its family took in their turns, once. Deeper nests, and parallel calls of one session, can
still wait for themselves: of a family in which nothing has changed for ``STUCK_S``, and which uses no CPU,
one more starts if memory is free, reserved or not. When the lender ends its borrowers are charged, and do
not lend on.
"""

from collections.abc import Hashable
from dataclasses import dataclass
from itertools import islice

from gateway.asks import AdmissionSettings as AdmissionSettings
from gateway.asks import Ask as Ask
from gateway.asks import Offer as Offer
from gateway.asks import Shortage as Shortage
from gateway.holdings import MILLI, Lane
from gateway.host import ExecUse, Reading
from gateway.room import Need, Room
from gateway.turns import Turns, Waiting
from gateway.waits import Waits

_PATIENCE_S = 5.0
"""How long the one whose turn it is may be passed: short beside the 30 s after which the first agents give
up, long beside the median command (0.3 s, TraceLab)."""
_LOOK_AHEAD = 16
"""Sessions, or commands of a family, that are looked at for one that fits: what a start costs is bounded."""


@dataclass(slots=True, eq=False)
class _Queued:
    need: Need
    since_s: float
    blocked_s: float | None = None
    """Since when it would be its turn but it does not fit."""

    @property
    def ask(self) -> Ask:
        return self.need.ask

    def is_out_of_patience(self, now: float) -> bool:
        if self.blocked_s is None:
            self.blocked_s = now
        return now - self.blocked_s >= _PATIENCE_S


class HostQueue:
    def __init__(self, settings: AdmissionSettings) -> None:
        self._settings = settings
        self._room = Room(settings)
        self._waits = Waits()
        self._queued: dict[str, _Queued] = {}
        """Oldest first."""
        self._normal = Turns()
        self._short = Turns()
        self._nested: dict[Hashable, dict[str, _Queued]] = {}
        """What waits of each family, oldest first."""
        self._to_look_at: dict[Hashable, None] = {}
        """Families in which something changed, so that they may lend."""
        self._is_paused = False

    def __repr__(self) -> str:
        return (
            f"<HostQueue [slots: {self.used}/{self.slots} | running: {self.running}, queued: {self.queued}]>"
        )

    @property
    def slots(self) -> float:
        return self._room.load.slots_milli / MILLI

    @property
    def used(self) -> float:
        """Of the slots. More than there are while short ones turn out long, or others were found running."""
        return self._room.holdings.charged_milli / MILLI

    @property
    def lent(self) -> float:
        """Slots that nested commands use on top, of those their families hold."""
        return self._room.holdings.lent_milli / MILLI

    @property
    def running(self) -> int:
        return len(self._room.holdings)

    @property
    def short_running(self) -> int:
        """In the short lane."""
        return self._room.holdings.short

    @property
    def short_places(self) -> int:
        return self._room.load.short_places

    @property
    def queued(self) -> int:
        return len(self._queued)

    @property
    def queue_limit(self) -> int:
        return self._settings.queue_limit

    @property
    def memory_reserved_mb(self) -> int:
        return self._room.holdings.reserved_mb

    @property
    def is_paused(self) -> bool:
        return self._is_paused

    def memory_budget_mb(self, now: float) -> int | None:
        """What may be reserved; None where neither host nor settings say, and then memory holds nobody."""
        return self._room.load.memory_mb(now)

    def reading_age_s(self, now: float) -> float | None:
        """Of what the host told last; None before it did."""
        return self._room.load.age_s(now)

    def has_fresh_reading(self, now: float) -> bool:
        """It is no older than ``AdmissionSettings.stale_s``."""
        return self._room.load.is_fresh(now)

    def oldest_wait_s(self, now: float) -> float | None:
        """None when nothing waits."""
        oldest = next(iter(self._queued.values()), None)
        return None if oldest is None else now - oldest.since_s

    def wait_s(self, now: float) -> float | None:
        """How long a command waits to start, as the latest did; None before the first."""
        return self._waits.wait_s(self.oldest_wait_s(now), now)

    def retry_after_s(self, now: float) -> float:
        """When a refused caller may find room."""
        return self._waits.retry_after_s(self._room.holdings.normal, now)

    def position(self, ask_id: str) -> int | None:
        """How many of its lane start before it if nothing else comes and all fit; None: it does not wait."""
        queued = self._queued.get(ask_id)
        return None if queued is None else self._turns(queued).rank(ask_id)

    def shortage(self, ask_id: str, now: float) -> Shortage | None:
        """What it waits for first of all; None when it does not wait."""
        if (queued := self._queued.get(ask_id)) is None:
            return None
        return Shortage.PAUSED if self._is_paused else self._room.missing(queued.need, now) or Shortage.TURN

    def offer(self, ask: Ask, now: float) -> Offer:
        """Queue it, or grant it if it may start at once. Nothing else is granted thereby."""
        assert ask.id not in self._queued
        assert ask.id not in self._room.holdings
        queued = _Queued(self._room.weigh(ask), now)
        self._enter(queued)
        self._room.keep_books(now)
        if (grant := self._next(now)) is not None and grant[0] is queued:
            self._start(*grant, now)
            return Offer.GRANTED
        if self._is_full(queued) or self._is_hopeless(queued, now):
            self._leave(queued)
            self._turns(queued).remove(ask.id)
            return Offer.FULL
        return Offer.QUEUED

    def adopt(self, ask: Ask, now: float) -> None:
        """It runs on the host already, as a gateway finds that comes back. It is charged, room or not."""
        assert ask.id not in self._queued
        assert ask.id not in self._room.holdings
        self._room.take(self._room.weigh(ask), Lane.NORMAL, now)

    def end(self, ask_id: str, now: float) -> list[str]:
        """Forget it, waiting or holding; returns the ids that are thereby granted."""
        if (queued := self._queued.get(ask_id)) is not None:
            self._leave(queued)
            self._turns(queued).remove(ask_id)
        else:
            holding = self._room.holdings.release(ask_id, now)
            self._look_at(holding.family)
            if holding.lane is not Lane.SHORT:
                self._waits.ended(now - holding.since_s)
        return self._grant(now)

    def observe(self, reading: Reading, now: float) -> list[str]:
        """What the host measured; returns the ids that are thereby granted. Without a reading for ``stale_s``
        the settings hold."""
        self._room.observe(reading, now)
        return self.tick(now)

    def measured(self, ask_id: str, use: ExecUse, now: float) -> None:
        """What one uses that readings do not tell of, as a lease: so much is not others'."""
        self._room.holdings.measure_one(ask_id, use, now)

    def tick(self, now: float) -> list[str]:
        """For what time alone changes, about once a second; returns the ids that are granted."""
        for family in self._nested:
            self._look_at(family)
        return self._grant(now)

    def pause(self) -> None:
        """Start nothing: the host is draining or gone. What runs goes on, what waits waits."""
        self._is_paused = True

    def resume(self, now: float) -> list[str]:
        """Returns the ids that are thereby granted."""
        self._is_paused = False
        return self.tick(now)

    def _turns(self, queued: _Queued) -> Turns:
        return self._short if queued.need.is_short else self._normal

    def _enter(self, queued: _Queued) -> None:
        ask = queued.ask
        self._queued[ask.id] = queued
        self._turns(queued).add(Waiting(ask.id, ask.session, ask.priority))
        if ask.family is not None:
            self._nested.setdefault(ask.family, {})[ask.id] = queued
            self._look_at(ask.family)

    def _leave(self, queued: _Queued) -> None:
        """All but its turn."""
        del self._queued[queued.ask.id]
        if (family := queued.ask.family) is not None:
            del self._nested[family][queued.ask.id]
            if not self._nested[family]:
                del self._nested[family]

    def _look_at(self, family: Hashable | None) -> None:
        if family in self._nested:
            self._to_look_at[family] = None

    def _is_full(self, queued: _Queued) -> bool:
        """A tenant with less than its part of a full queue is let in still: others cannot fill it alone."""
        turns, tenant = self._turns(queued), queued.ask.session[0]
        limit = self._settings.queue_limit
        return len(turns) > limit and turns.count(tenant) > limit // turns.tenants

    def _is_hopeless(self, queued: _Queued, now: float) -> bool:
        timeout_s = queued.ask.queue_timeout_s
        if not self._settings.refuses_hopeless or timeout_s is None or queued.need.is_short:
            return False
        starts = self._normal.rank(queued.ask.id) + 1
        foreseen_s = self._waits.foreseen_s(starts, self._room.holdings.normal, now)
        return foreseen_s is not None and foreseen_s > timeout_s

    def _grant(self, now: float) -> list[str]:
        self._room.keep_books(now)
        granted = []
        while (grant := self._next(now)) is not None:
            self._start(*grant, now)
            granted.append(grant[0].ask.id)
        return granted

    def _start(self, queued: _Queued, lane: Lane, now: float) -> None:
        """Who borrows takes no turn."""
        turns = self._turns(queued)
        turns.remove(queued.ask.id) if lane is Lane.LENT else turns.serve(queued.ask.id)
        self._leave(queued)
        self._waits.started(now - queued.since_s, now)
        self._room.take(queued.need, lane, now)
        self._look_at(queued.ask.family)

    def _next(self, now: float) -> tuple[_Queued, Lane] | None:
        """One that may start, and where."""
        if self._is_paused or not self._queued:
            return None
        short = self._first(self._short)
        if short is not None and self._room.fits_short(short.need, now):
            return short, Lane.SHORT
        if (borrower := self._next_borrower(now)) is not None:
            return borrower, Lane.LENT
        if (normal := self._next_normal(now)) is not None:
            return normal, Lane.NORMAL
        return None

    def _next_normal(self, now: float) -> _Queued | None:
        first = self._first(self._normal)
        for head in islice(self._normal.heads(), _LOOK_AHEAD):
            queued = self._queued[head]
            if self._room.missing(queued.need, now) is None:
                return queued
            if first is not None and first.is_out_of_patience(now):
                return None
        short = self._first(self._short)
        return short if short is not None and self._room.missing(short.need, now) is None else None

    def _next_borrower(self, now: float) -> _Queued | None:
        while self._to_look_at:
            family = next(iter(self._to_look_at))
            for queued in islice(self._nested.get(family, {}).values(), _LOOK_AHEAD):
                if self._room.can_borrow(queued.need, now):
                    return queued
                if self._room.is_stuck(queued.need, queued.since_s, now):
                    return queued
            del self._to_look_at[family]
        return None

    def _first(self, turns: Turns) -> _Queued | None:
        head = next(turns.heads(), None)
        return None if head is None else self._queued[head]

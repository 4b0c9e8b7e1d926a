"""What one host has room for: the rules by which a command may start on it.

Owns the rules, and the books and readings that they look at; it must not know what waits, nor in which order.
"""

from dataclasses import dataclass
from math import ceil

from gateway.asks import AdmissionSettings, Ask, Shortage
from gateway.holdings import MILLI, Family, Holding, Holdings, Lane
from gateway.host import Reading
from gateway.host_load import HostLoad

MIN_CPU = 0.05
"""Least charge of one ask, so that a flood of sleepers is bounded at 20 per slot."""
SHORT_OVER = 2.0
"""Times ``short_s`` that a command may stay in the short lane: two that share a core take twice as long."""
STUCK_S = 5.0
"""A family that neither starts, ends nor computes anything for so long waits for itself."""
_STUCK_CPU_RATIO = 0.25
"""Of the slots it holds. Agents that wait take a few hundredths of a core; a build takes all."""
MOST_BORROWERS = 8
"""Of one family, up to which it is helped out of itself: no agents nest as deep."""


@dataclass(frozen=True, slots=True)
class Need:
    """What an ask comes to on this host."""

    ask: Ask
    milli: int
    memory_mb: int
    is_short: bool


class Room:
    def __init__(self, settings: AdmissionSettings) -> None:
        self.load = HostLoad(settings)
        self.holdings = Holdings()
        self._settings = settings

    def weigh(self, ask: Ask) -> Need:
        settings, milli = self._settings, round(max(ask.cpu, MIN_CPU) * MILLI)
        is_short = (
            ask.expected_s is not None
            and ask.expected_s <= settings.short_s
            and milli <= MILLI
            and (ask.memory_mb or 0.0) <= settings.short_memory_mb
            and self.load.short_places > 0
        )
        default_mb = settings.short_memory_mb if is_short else settings.memory_default_mb
        return Need(ask, milli, ceil(default_mb if ask.memory_mb is None else ask.memory_mb), is_short)

    def observe(self, reading: Reading, now: float) -> None:
        ours_cores = self.holdings.measure(reading.execs, now)
        self.load.observe(reading, self.holdings.rss_mb, ours_cores, now)

    def keep_books(self, now: float) -> None:
        """What has become of those that run, by now."""
        self.holdings.end_short_of(now - SHORT_OVER * self._settings.short_s)

    def take(self, need: Need, lane: Lane, now: float) -> None:
        ask, milli = need.ask, min(need.milli, self.load.slots_milli)
        self.holdings.hold(Holding(ask.id, ask.session, ask.family, lane, milli, need.memory_mb, now))
        if lane is Lane.NORMAL:
            self.load.started(now)

    def missing(self, need: Need, now: float) -> Shortage | None:
        """What it lacks to start on slots of its own. One may always run."""
        if self.holdings.normal == 0:
            return None
        milli = min(need.milli, self.load.slots_milli)
        if self.holdings.charged_milli + milli > self.load.usable_milli(now):
            return Shortage.CPU
        if not self._fits_memory(need, now):
            return Shortage.MEMORY
        return Shortage.PRESSURE if self.load.is_pressed(now) else None

    def fits_short(self, need: Need, now: float) -> bool:
        """In the lane beside the slots; what is over them takes places away. One of the lane may always run,
        whatever memory is left."""
        over_milli = max(0, self.holdings.charged_milli - self.load.slots_milli)
        if over_milli + (self.holdings.short + 1) * MILLI > self.load.short_places * MILLI:
            return False
        if (budget_mb := self.load.memory_mb(now)) is None or self.holdings.short == 0:
            return True
        lane_mb = self._lane_mb(budget_mb)
        over_mb = max(0, self._normal_mb - (budget_mb - lane_mb))
        return over_mb + self.holdings.short_reserved_mb + need.memory_mb <= lane_mb

    def can_borrow(self, need: Need, now: float) -> bool:
        """Slots that others of its family hold."""
        family = self._family(need)
        if family is None or min(need.milli, self.load.slots_milli) > family.lendable_milli(need.ask.session):
            return False
        return self._fits_memory(need, now) and not self.load.is_pressed(now)

    def is_stuck(self, need: Need, since_s: float, now: float) -> bool:
        """Nothing but the start of this one could move its family, and there is memory that nobody uses."""
        family = self._family(need)
        if family is None or not family.lending_milli or family.borrowers >= MOST_BORROWERS:
            return False
        if now - max(family.changed_s, since_s) < STUCK_S or self._is_working(family, now):
            return False
        budget_mb = self.load.memory_mb(now)
        return budget_mb is None or self.holdings.rss_mb + need.memory_mb <= budget_mb

    def _family(self, need: Need) -> Family | None:
        return self.holdings.families.get(need.ask.family)

    def _is_working(self, family: Family, now: float) -> bool:
        """As far as one knows."""
        cores = family.cores if self.load.is_fresh(now) else None
        return cores is not None and cores >= _STUCK_CPU_RATIO * max(1.0, family.lending_milli / MILLI)

    def _fits_memory(self, need: Need, now: float) -> bool:
        budget_mb = self.load.memory_mb(now)
        return budget_mb is None or self._normal_mb + need.memory_mb <= budget_mb - self._lane_mb(budget_mb)

    @property
    def _normal_mb(self) -> int:
        return self.holdings.reserved_mb - self.holdings.short_reserved_mb

    def _lane_mb(self, budget_mb: int) -> int:
        """Of the budget, for the short lane; where that is small, not more than a quarter."""
        return min(ceil(self.load.short_places * self._settings.short_memory_mb), budget_mb // 4)

"""What runs on one host and what it holds: slots, places of the short lane, memory, and what families lend.

Owns the books; it must not know what waits, nor decide anything. CPU is counted in thousandths of a slot and
memory in MB, both as integers: sums of floats would drift.
"""

from collections.abc import Hashable, Mapping
from dataclasses import dataclass, field
from enum import Enum
from math import ceil

from gateway.host import ExecUse
from gateway.turns import Session

MILLI = 1000


class Lane(Enum):
    NORMAL = "normal"
    SHORT = "short"
    """Beyond the slots, for as long as it is short."""
    LENT = "lent"
    """On slots that its family holds, as far as it was not charged since."""


@dataclass(slots=True, eq=False)
class Holding:
    id: str
    session: Session
    family: Hashable | None
    lane: Lane
    milli: int
    """What it takes."""
    memory_mb: int
    """What was set aside for it."""
    since_s: float
    charged_milli: int = 0
    """What it has of the slots: all, nothing, or of a borrower what its lenders gave back."""
    rss_mb: float | None = None
    """Measured last; None before that."""
    cpu_s: float | None = None
    cores: float | None = None
    """In use lately, measured."""
    measured_s: float | None = None

    @property
    def reserved_mb(self) -> int:
        return self.memory_mb if self.rss_mb is None else max(self.memory_mb, ceil(self.rss_mb))

    @property
    def lent_milli(self) -> int:
        return self.milli - self.charged_milli if self.lane is Lane.LENT else 0

    def measure(self, use: ExecUse, now: float) -> None:
        if use.rss_mb is not None:
            self.rss_mb = use.rss_mb
        if use.cpu_s is None:
            return
        since_s = self.since_s if self.measured_s is None else self.measured_s
        if now > since_s:
            self.cores = max(0.0, use.cpu_s - (self.cpu_s or 0.0)) / (now - since_s)
            self.cpu_s, self.measured_s = use.cpu_s, now


@dataclass(slots=True)
class Family:
    """Those of one family that run: at least one."""

    changed_s: float
    """When the last of them started or ended."""
    members: dict[str, Holding] = field(default_factory=dict)

    @property
    def lending_milli(self) -> int:
        """What those hold who took their turn for it."""
        return sum(m.charged_milli for m in self.members.values() if m.lane is Lane.NORMAL)

    @property
    def lent_milli(self) -> int:
        return sum(member.lent_milli for member in self.members.values())

    @property
    def borrowers(self) -> int:
        return sum(member.lent_milli > 0 for member in self.members.values())

    @property
    def cores(self) -> float | None:
        """None where it was not measured for all of them."""
        cores = [member.cores for member in self.members.values()]
        known = [each for each in cores if each is not None]
        return sum(known) if len(known) == len(cores) else None

    def lendable_milli(self, session: Session) -> int:
        """To a session, by the others of its family."""
        own = (m for m in self.members.values() if m.session == session and m.lane is Lane.NORMAL)
        return self.lending_milli - sum(m.charged_milli for m in own) - self.lent_milli


class Holdings:
    def __init__(self) -> None:
        self.charged_milli = 0
        self.lent_milli = 0
        self.reserved_mb = 0
        self.short_reserved_mb = 0
        """Part of ``reserved_mb``."""
        self._by_id: dict[str, Holding] = {}
        self._short: dict[str, Holding] = {}
        """Oldest first."""
        self._families: dict[Hashable, Family] = {}
        self._held_milli = 0
        self._held_milli_s = 0.0
        self._held_until_s: float | None = None
        self._measured_s: float | None = None
        """Integral of ``_held_milli`` since the last reading, and how far it goes."""

    def __len__(self) -> int:
        return len(self._by_id)

    def __contains__(self, holding_id: object) -> bool:
        return holding_id in self._by_id

    @property
    def short(self) -> int:
        return len(self._short)

    @property
    def normal(self) -> int:
        """Those that are not in the short lane."""
        return len(self._by_id) - len(self._short)

    @property
    def families(self) -> Mapping[Hashable, Family]:
        return self._families

    @property
    def rss_mb(self) -> float:
        """Measured, of those that were."""
        return sum(holding.rss_mb or 0.0 for holding in self._by_id.values())

    def hold(self, holding: Holding) -> None:
        self._pass_time(holding.since_s)
        self._by_id[holding.id] = holding
        self._held_milli += holding.milli
        if holding.lane is Lane.SHORT:
            self._short[holding.id] = holding
        elif holding.lane is Lane.NORMAL:
            holding.charged_milli = holding.milli
        if holding.family is not None:
            family = self._families.setdefault(holding.family, Family(holding.since_s))
            family.members[holding.id], family.changed_s = holding, holding.since_s
        self._count(holding, 1)

    def release(self, holding_id: str, now: float) -> Holding:
        self._pass_time(now)
        holding = self._by_id.pop(holding_id)
        self._held_milli -= holding.milli
        self._count(holding, -1)
        self._short.pop(holding_id, None)
        if holding.family is not None:
            family = self._families[holding.family]
            del family.members[holding_id]
            family.changed_s = now
            if not family.members:
                del self._families[holding.family]
            elif holding.lane is Lane.NORMAL:
                self._repay(family, holding.charged_milli)
        return holding

    def end_short_of(self, before_s: float) -> None:
        """Those in the short lane since before then are charged as any other from now on."""
        while self._short and (oldest := next(iter(self._short.values()))).since_s <= before_s:
            self._count(oldest, -1)
            del self._short[oldest.id]
            oldest.lane, oldest.charged_milli = Lane.NORMAL, oldest.milli
            self._count(oldest, 1)

    def measure(self, execs: Mapping[str, ExecUse], now: float) -> float:
        """Take note of what each uses. Returns the cores that all have used since the last time, and not less
        than they held: of those that ended in between nothing was measured."""
        for exec_id, use in execs.items():
            self.measure_one(exec_id, use, now)
        measured = sum(holding.cores or 0.0 for holding in self._by_id.values())
        return max(measured, self._mean_held_cores(now))

    def measure_one(self, holding_id: str, use: ExecUse, now: float) -> None:
        if (holding := self._by_id.get(holding_id)) is not None:
            self._count(holding, -1)
            holding.measure(use, now)
            self._count(holding, 1)

    def _repay(self, family: Family, freed_milli: int) -> None:
        """A lender ended and its borrowers go on: what it gave back is charged to them, and everything when
        nobody is left who lends. So a family cannot keep a slot by borrowing it from itself in turns."""
        lending_milli = family.lending_milli
        owed_milli = family.lent_milli
        if lending_milli:
            owed_milli = min(owed_milli - lending_milli, freed_milli)
        for member in family.members.values():
            charge = min(member.lent_milli, owed_milli)
            if charge > 0:
                owed_milli -= charge
                self._count(member, -1)
                member.charged_milli += charge
                self._count(member, 1)

    def _mean_held_cores(self, now: float) -> float:
        begin_s = self._measured_s
        self._pass_time(now)
        held_milli_s, self._held_milli_s, self._measured_s = self._held_milli_s, 0.0, now
        if begin_s is None or now <= begin_s:
            return self._held_milli / MILLI
        return held_milli_s / MILLI / (now - begin_s)

    def _pass_time(self, now: float) -> None:
        if self._held_until_s is not None:
            self._held_milli_s += self._held_milli * (now - self._held_until_s)
        self._held_until_s = now

    def _count(self, holding: Holding, sign: int) -> None:
        self.charged_milli += sign * holding.charged_milli
        self.lent_milli += sign * holding.lent_milli
        self.reserved_mb += sign * holding.reserved_mb
        if holding.lane is Lane.SHORT:
            self.short_reserved_mb += sign * holding.reserved_mb

"""KV that is kept for sessions that will return, and who may take it all the same.

A lease holds the cached prefix of one chain: its blocks leave the queue of those that are reused. It ends
when its time is up, when the chain's next request is scheduled, when it is told to, or when its blocks are
reclaimed because somebody needs them who may take them. While a request of the chain waits the lease is
*claimed*: its time stands still. Whoever asks loses its own lease first, since that ends when it is
scheduled; then go leases that yield to anybody, unclaimed ones, claimed ones, and those that yield to nobody;
among equals the earliest kept, and of each its tail.

Owns the leases, their deadlines, their budget and how they ended; which need comes before which lease is the
scheduler's to say.
"""

from collections.abc import Collection
from dataclasses import dataclass
from enum import Enum
from heapq import heappop, heappush
from typing import ClassVar

from loadgen.engine.extent_pool import ExtentPool, Parts
from loadgen.engine.extents import Extent
from marsproxy.core.commands import YieldsTo


class How(Enum):
    RESUMED = "resumed"
    RECLAIMED = "reclaimed"
    EXPIRED = "expired"


@dataclass(frozen=True, slots=True)
class Ending:
    """Of a lease, or of a part of it, that was not asked for by a hint."""

    chain: str
    how: How
    blocks: int
    hit_blocks: int = 0
    """Of RESUMED: leased ones that the request found in its prompt."""


class Lease:
    """One chain's kept blocks."""

    is_lease: ClassVar[bool] = True
    __slots__ = ("chain", "claims", "expires_s", "extents", "yields_to")

    def __init__(self, chain: str, expires_s: float | None, yields_to: YieldsTo, claims: int) -> None:
        self.chain = chain
        self.expires_s = expires_s
        self.yields_to = yields_to
        self.claims = claims
        """Requests of the chain that wait."""
        self.extents: list[Extent] = []

    @property
    def blocks(self) -> int:
        return sum([extent.hi - extent.lo for extent in self.extents])

    @property
    def rank(self) -> int:
        """Lower gives way earlier."""
        match self.yields_to:
            case YieldsTo.ANYBODY:
                return 0
            case YieldsTo.RETURNING:
                return 2 if self.claims else 1
            case YieldsTo.NOBODY:
                return 3


class Leases:
    def __init__(self, pool: ExtentPool, budget_blocks: int) -> None:
        self._pool = pool
        self._budget_blocks = budget_blocks
        self._leases: dict[str, Lease] = {}
        """By chain, the earliest kept first."""
        self._deadlines: list[tuple[float, int, Lease]] = []
        self._entries = 0
        self._endings: list[Ending] = []
        self._reclaimed: dict[str, int] = {}

    def __len__(self) -> int:
        return len(self._leases)

    def __contains__(self, chain: str) -> bool:
        return chain in self._leases

    def keep(
        self, chain: str, parts: Parts, expires_s: float | None, yields_to: YieldsTo, claims: int = 0
    ) -> int:
        """Hold these parts of the chain, as far as the budget goes, in place of its earlier lease; blocks."""
        lease = Lease(chain, expires_s, yields_to, claims)
        self._pool.hold_parts(self._fitting(parts), lease)
        self.end(chain)
        if lease.extents:
            self._leases[chain] = lease
            self._enter_deadline(lease)
        return lease.blocks

    def end(self, chain: str) -> None:
        """What only this lease held is idle, as if just freed; nothing if there is none."""
        lease = self._leases.pop(chain, None)
        if lease is not None:
            self._pool.let_go(lease)

    def resume(self, chain: str, hit_blocks: int) -> None:
        """The chain's next request has what it found in its own hands."""
        lease = self._leases.get(chain)
        if lease is not None:
            blocks = lease.blocks
            self.end(chain)
            self._add_ending(Ending(chain, How.RESUMED, blocks, min(blocks, hit_blocks)))

    def end_all(self) -> None:
        for chain in list(self._leases):
            self.end(chain)

    def _fitting(self, parts: Parts) -> Parts:
        """A lease that is too long keeps the beginning, which is what can still be found without the rest."""
        room = self._budget_blocks - self._pool.pinned_blocks
        fitting: Parts = []
        for extent, start, end in parts:
            blocks = end - start
            if not extent.is_pinned:
                blocks = min(blocks, room)
                room -= blocks
            if blocks:
                fitting.append((extent, start, start + blocks))
            if start + blocks < end:
                break
        return fitting

    # -- deadlines and claims ----------------------------------------------------------------------

    @property
    def next_expiry_s(self) -> float | None:
        while self._deadlines:
            expires_s, _number, lease = self._deadlines[0]
            if self._leases.get(lease.chain) is lease and not lease.claims:
                return expires_s
            heappop(self._deadlines)
        return None

    def expire(self, now: float) -> None:
        while self._deadlines and (expiry_s := self.next_expiry_s) is not None and expiry_s <= now:
            lease = self._deadlines[0][2]
            blocks = lease.blocks
            self.end(lease.chain)
            self._add_ending(Ending(lease.chain, How.EXPIRED, blocks))

    def claim(self, chain: str) -> None:
        """A request of the chain waits."""
        if (lease := self._leases.get(chain)) is not None:
            lease.claims += 1

    def unclaim(self, chain: str) -> None:
        """It is gone, and was never scheduled."""
        if (lease := self._leases.get(chain)) is not None and lease.claims:
            lease.claims -= 1
            if not lease.claims:
                self._enter_deadline(lease)

    def _enter_deadline(self, lease: Lease) -> None:
        if lease.expires_s is not None:
            self._entries += 1
            heappush(self._deadlines, (lease.expires_s, self._entries, lease))

    # -- how they ended ----------------------------------------------------------------------------

    def take_endings(self) -> list[Ending]:
        """Since the last call. What was reclaimed from one lease in the meantime is one ending."""
        for chain in list(self._reclaimed):
            self._settle(chain)
        endings, self._endings = self._endings, []
        return endings

    def _add_ending(self, ending: Ending) -> None:
        self._settle(ending.chain)
        self._endings.append(ending)

    def _settle(self, chain: str) -> None:
        if blocks := self._reclaimed.pop(chain, 0):
            self._endings.append(Ending(chain, How.RECLAIMED, blocks))

    # -- giving way --------------------------------------------------------------------------------

    def can_reclaim(self, count: int, yielding: Collection[YieldsTo], parts: Parts, own: str | None) -> bool:
        """Whether that many blocks could be freed for somebody who wants ``parts`` and so takes none of them.

        ``own`` is the chain that asks: its lease gives way in any case.
        """
        wanted = {extent: end - start for extent, start, end in parts}
        willing = self._willing(yielding, own)
        for lease in willing:
            for extent in reversed(lease.extents):
                if extent.users or extent.holders[0] is not lease:
                    continue  # used, or counted with its first holder
                if len(extent.holders) == 1 or all(holder in willing for holder in extent.holders):
                    count -= extent.hi - extent.lo - wanted.get(extent, 0)
            if count <= 0:
                return True
        return False

    def reclaim(self, count: int, yielding: Collection[YieldsTo], parts: Parts, own: str | None) -> None:
        """Free that many blocks, at most what is reclaimable."""
        wanted = self._pool.cut_out(parts)
        enough = self._pool.free_blocks + count
        for lease in self._willing(yielding, own):
            self._reclaim_from(lease, enough, wanted)
            if self._pool.free_blocks >= enough:
                return

    def _willing(self, yielding: Collection[YieldsTo], own: str | None) -> list[Lease]:
        """In the order in which they give way."""
        willing = [each for each in self._leases.values() if each.yields_to in yielding or each.chain == own]
        willing.sort(key=lambda lease: (lease.chain != own, lease.rank))
        return willing

    def _reclaim_from(self, lease: Lease, enough: int, wanted: set[Extent]) -> None:
        """Free the lease's blocks, tail first, until ``enough`` are free or a wanted one is reached."""
        freed = 0
        while lease.extents and lease.extents[-1] not in wanted:
            missing = enough - self._pool.free_blocks
            if not missing:
                break
            last = lease.extents[-1]
            if len(last.holders) > 1:
                self._pool.let_go_tail(lease, last.blocks)  # another holds it: nothing is gained yet
                continue
            count = min(missing, last.blocks)
            self._pool.let_go_tail(lease, count)
            freed += count
        if freed:
            self._reclaimed[lease.chain] = self._reclaimed.get(lease.chain, 0) + freed
        if not lease.extents:
            del self._leases[lease.chain]

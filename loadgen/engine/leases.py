"""KV that is kept for sessions that will return, and who may take it all the same.

A lease holds the cached prefix of one chain: its blocks leave the queue of those that are reused. It ends
when its time is up, when the chain's next request is scheduled, when it is told to, or when its blocks are
reclaimed because somebody needs them who may take them; the earliest kept gives way first, tail first.
Owns the leases and their deadlines; which need comes before which lease is the scheduler's to say.
"""

from collections.abc import Collection
from heapq import heappop, heappush
from typing import ClassVar

from loadgen.engine.extent_pool import ExtentPool, Parts
from loadgen.engine.extents import Extent
from marsproxy.core.commands import YieldsTo


class Lease:
    """One chain's kept blocks."""

    is_lease: ClassVar[bool] = True
    __slots__ = ("chain", "expires_s", "extents", "yields_to")

    def __init__(self, chain: str, expires_s: float | None, yields_to: YieldsTo) -> None:
        self.chain = chain
        self.expires_s = expires_s
        self.yields_to = yields_to
        self.extents: list[Extent] = []


class Leases:
    def __init__(self, pool: ExtentPool) -> None:
        self._pool = pool
        self._leases: dict[str, Lease] = {}
        """By chain, the earliest kept first."""
        self._deadlines: list[tuple[float, int, Lease]] = []
        self._kept = 0
        self._reclaimed: dict[str, int] = {}

    def __len__(self) -> int:
        return len(self._leases)

    @property
    def next_expiry_s(self) -> float | None:
        while self._deadlines:
            expires_s, _number, lease = self._deadlines[0]
            if self._leases.get(lease.chain) is lease:
                return expires_s
            heappop(self._deadlines)
        return None

    def keep(self, chain: str, parts: Parts, expires_s: float | None, yields_to: YieldsTo) -> None:
        """Hold these parts of the chain; replaces its earlier lease."""
        lease = Lease(chain, expires_s, yields_to)
        self._pool.hold_parts(parts, lease)
        self.end(chain)
        self._leases[chain] = lease
        if expires_s is not None:
            self._kept += 1
            heappush(self._deadlines, (expires_s, self._kept, lease))

    def end(self, chain: str) -> None:
        """What only this lease held is idle, as if just freed; nothing if there is none."""
        lease = self._leases.pop(chain, None)
        if lease is not None:
            self._pool.let_go(lease)

    def end_all(self) -> None:
        for chain in list(self._leases):
            self.end(chain)

    def expire(self, now: float) -> None:
        while self._deadlines and (expiry_s := self.next_expiry_s) is not None and expiry_s <= now:
            self.end(self._deadlines[0][2].chain)

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
        return [each for each in self._leases.values() if each.yields_to in yielding or each.chain == own]

    def take_reclaimed(self) -> list[tuple[str, int]]:
        """``(chain, blocks)`` of what was reclaimed since the last call."""
        reclaimed, self._reclaimed = self._reclaimed, {}
        return list(reclaimed.items())

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

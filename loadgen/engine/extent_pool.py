"""Which blocks are used, leased, idle or empty: vLLM's block pool in runs of blocks.

Owns the chains that are in the cache and the order in which their idle blocks are reused. Knows holders
of extents, but not what they want them for, and no time.
"""

from loadgen.engine.extents import Chain, Extent, FreeQueue, Holder

Parts = list[tuple[Extent, int, int]]
"""``(extent, from, to)``: pieces of extents in the order of a text."""


class ExtentPool:
    def __init__(self, total_blocks: int) -> None:
        if total_blocks < 1:
            raise ValueError(f"total_blocks must be at least 1, not {total_blocks}")
        self.total_blocks = total_blocks
        self.chains: dict[str, Chain] = {}
        """Those that have a block in the cache."""
        self.leased_blocks = 0
        """Held by leases alone."""
        self.pinned_blocks = 0
        """Held by leases, by requests too or not."""
        self._queue = FreeQueue()
        self._idle_blocks = 0
        self._empty_blocks = total_blocks
        """Free ones that cache nothing; vLLM keeps them at the head of its queue."""

    @property
    def free_blocks(self) -> int:
        return self._empty_blocks + self._idle_blocks

    @property
    def used_blocks(self) -> int:
        return self.total_blocks - self._empty_blocks - self._idle_blocks - self.leased_blocks

    # -- finding and holding ---------------------------------------------------------------------

    def cover(self, name: str | None, start: int, limit: int, parts: Parts) -> int:
        """Append what of the chain is cached from ``start`` on without a gap; the first block that is not."""
        chain = self.chains.get(name) if name is not None else None
        return chain.cover(start, limit, parts) if chain is not None else start

    def hold_parts(self, parts: Parts, holder: Holder) -> None:
        """Let the holder have exactly these; what is left of their extents stays as it is."""
        extents: list[Extent] = []
        for extent, start, end in reversed(parts):  # a cut leaves the lower blocks in place
            cut = self._cut(extent, start, end)
            self._hold(cut, holder)
            extents.append(cut)
        extents.reverse()
        holder.extents = extents

    def let_go(self, holder: Holder) -> None:
        """Drop all that the holder has, the last first; what nobody else holds becomes idle."""
        above: Extent | None = None
        for extent in reversed(holder.extents):
            if not self._drop(extent, holder):
                above = None
                continue
            if above is not None and self._can_merge(extent, above):
                self._queue.remove(above)
                extent.chain.extents.remove(above)
                extent.hi = above.hi
            self._queue.append(extent)
            above = extent
        holder.extents = []

    def let_go_tail(self, holder: Holder, count: int) -> None:
        """Drop the last ``count`` blocks of the holder's last extent."""
        extent = holder.extents[-1]
        if count < extent.blocks:
            extent = self._split(extent, extent.hi - count)
        holder.extents.pop()
        if self._drop(extent, holder):
            self._queue.append(extent)

    def cut_out(self, parts: Parts) -> set[Extent]:
        """Split so that the parts are extents of their own; those extents."""
        return {self._cut(extent, start, end) for extent, start, end in reversed(parts)}

    # -- making and giving back ------------------------------------------------------------------

    def allocate(self, count: int) -> None:
        """Take that many free blocks, those that were free longest first; what they cached is gone."""
        empty = min(count, self._empty_blocks)
        self._empty_blocks -= empty
        count -= empty
        self._idle_blocks -= count
        while count:
            extent = self._queue.first
            if extent.hi - extent.lo > count:
                extent.hi -= count
                return
            count -= extent.hi - extent.lo
            self._queue.remove(extent)
            self._forget(extent)

    def give_back_empty(self, count: int) -> None:
        """Blocks that never filled up: nobody can ever find them, so they are reused first."""
        self._empty_blocks += count

    def extend(self, holder: Holder, chain: Chain, start: int, end: int) -> None:
        """Allocated blocks of the holder are full: they are found from now on."""
        if holder.extents:
            last = holder.extents[-1]
            # Only the extent that was computed last may grow in place: it hides no other.
            if last.chain is chain and chain.extents[-1] is last and len(last.holders) == 1:
                last.hi = end
                return
        extent = Extent(chain, start, end)
        extent.holders.append(holder)
        extent.users = 1
        chain.extents.append(extent)
        holder.extents.append(extent)

    # -- idle extents ----------------------------------------------------------------------------

    def idle_extents(self, name: str) -> list[Extent]:
        """The chain's own, in the order of the text."""
        chain = self.chains.get(name)
        idle = [extent for extent in chain.extents if not extent.holders] if chain is not None else []
        return sorted(idle, key=lambda extent: extent.lo)

    def reuse_first(self, extent: Extent) -> None:
        """Move an idle extent to the head of the queue."""
        self._queue.remove(extent)
        self._queue.insert(extent, after=self._queue.first)

    def empty(self, extent: Extent) -> None:
        """Forget what an idle extent caches."""
        self._queue.remove(extent)
        self._idle_blocks -= extent.blocks
        self._empty_blocks += extent.blocks
        self._forget(extent)

    def empty_all(self) -> None:
        for extent in list(self._queue):
            self.empty(extent)

    # -- one extent ------------------------------------------------------------------------------

    def _cut(self, extent: Extent, start: int, end: int) -> Extent:
        if end < extent.hi:
            self._split(extent, end)
        return self._split(extent, start) if start > extent.lo else extent

    def _split(self, extent: Extent, at: int) -> Extent:
        upper = extent.split(at)
        if not extent.holders:
            self._queue.insert(upper, after=extent)
        return upper

    def _hold(self, extent: Extent, holder: Holder) -> None:
        blocks = extent.hi - extent.lo
        if not extent.holders:
            self._queue.remove(extent)
            self._idle_blocks -= blocks
            self.leased_blocks += blocks
        if holder.is_lease:
            self.pinned_blocks += 0 if extent.is_pinned else blocks
        else:
            if not extent.users:
                self.leased_blocks -= blocks
            extent.users += 1
        extent.holders.append(holder)

    def _drop(self, extent: Extent, holder: Holder) -> bool:
        """Whether nobody holds it any more; it is then idle, and the caller puts it into the queue."""
        blocks = extent.hi - extent.lo
        extent.holders.remove(holder)
        if holder.is_lease:
            self.pinned_blocks -= 0 if extent.is_pinned else blocks
        else:
            extent.users -= 1
            if not extent.users:
                self.leased_blocks += blocks
        if extent.holders:
            return False
        self.leased_blocks -= blocks
        self._idle_blocks += blocks
        return True

    @staticmethod
    def _can_merge(extent: Extent, above: Extent) -> bool:
        # With a third extent in the chain the order of computation would have to be looked at.
        return extent.chain is above.chain and extent.hi == above.lo and len(extent.chain.extents) == 2

    def _forget(self, extent: Extent) -> None:
        chain = extent.chain
        chain.extents.remove(extent)
        if not chain.extents:
            del self.chains[chain.name]

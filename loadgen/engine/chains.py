"""The KV cache by name: what vLLM's block pool does, at a cost that does not grow with the contexts.

    store = ChainStore(total_blocks, block_tokens)
    scheduler = Scheduler(limits, store=store)
    scheduler.add(EngineRequest(id, prompt_tokens, output_tokens, chain="s1",
                                shared_chain="system", shared_tokens=1300))

A request's context is one *chain*, a text that only grows: turn k of a session has the prompt and the
answer of turn k - 1 as its prefix and says so by the same chain name. The first
``shared_tokens // block_tokens`` blocks belong to ``shared_chain``, which any number of chains may stand
on. A history that is rewritten (condensed) is another text, so it needs a new chain name, as does a call
beside the session with a prompt of its own. Two requests of one chain at once are two readings of one
text: they share what both have, as they would in vLLM.

Owns which blocks are free, held or cached, as runs of blocks (``extents``); nothing is done block by
block. What it must equal is ``BlockStore`` with hashes of ``(chain, index)``, and the tests hold it to it:
free blocks that cache nothing go first, then idle ones in the order in which they were freed, tail first.
"""

from loadgen.engine.extents import Chain, Extent, FreeQueue, Holder
from loadgen.engine.requests import EngineRequest
from loadgen.engine.stores import Hit


class ChainStore:
    def __init__(self, total_blocks: int, block_tokens: int = 16) -> None:
        if total_blocks < 1:
            raise ValueError(f"total_blocks must be at least 1, not {total_blocks}")
        self.total_blocks = total_blocks
        self.block_tokens = block_tokens
        self._chains: dict[str, Chain] = {}
        self._queue = FreeQueue()
        self._idle_blocks = 0
        self._empty_blocks = total_blocks
        """Free ones that cache nothing; vLLM keeps them at the head of its queue."""

    def __repr__(self) -> str:
        return f"<ChainStore {self.used_blocks} used, {self.free_blocks} free, {len(self._chains)} chains>"

    @property
    def free_blocks(self) -> int:
        return self._empty_blocks + self._idle_blocks

    @property
    def used_blocks(self) -> int:
        return self.total_blocks - self._empty_blocks - self._idle_blocks

    def resident_tokens(self, chain: str) -> int:
        """Tokens of the chain's own blocks that are in the cache, held or idle."""
        known = self._chains.get(chain)
        return sum(extent.blocks for extent in known.extents) * self.block_tokens if known else 0

    # -- what the scheduler asks -----------------------------------------------------------------

    def check(self, request: EngineRequest) -> None:
        if request.chain is None:
            raise ValueError(f"request {request.request_id}: chain must be named")
        if (request.shared_chain is None) != (request.shared_tokens == 0):
            raise ValueError(f"request {request.request_id}: shared_chain and shared_tokens go together")

    def find(self, request: EngineRequest, limit_blocks: int) -> Hit:
        parts: list[tuple[Extent, int, int]] = []
        found = 0
        shared = min(self._shared_blocks(request), limit_blocks)
        if shared:
            found = self._cover(request.shared_chain, 0, shared, parts)
        if found == shared:
            found = self._cover(request.chain, found, limit_blocks, parts)
        return Hit(found, parts)

    def idle_blocks(self, hit: Hit) -> int:
        return sum(end - start for extent, start, end in hit.parts if not extent.holders)

    def take(self, request: EngineRequest, hit: Hit) -> None:
        extents: list[Extent] = []
        for extent, start, end in reversed(hit.parts):  # cuts leave the lower part in place
            cut = self._cut(extent, start, end)
            self._hold(cut, request)
            extents.append(cut)
        extents.reverse()
        request.extents = extents
        request.held_blocks = request.registered_blocks = hit.blocks

    def try_grow(self, request: EngineRequest, tokens: int) -> bool:
        missing = -(-tokens // self.block_tokens) - request.held_blocks
        if missing > 0:
            if missing > self._empty_blocks + self._idle_blocks:
                return False
            self._allocate(missing)
            request.held_blocks += missing
        full_blocks = tokens // self.block_tokens
        if full_blocks > request.registered_blocks:
            self._register(request, full_blocks)
        request.settle(tokens, self.block_tokens)
        return True

    def free(self, request: EngineRequest) -> None:
        self._empty_blocks += request.held_blocks - request.registered_blocks
        self._let_go(request)
        request.let_go()

    def try_reset(self) -> bool:
        if self.used_blocks:
            return False
        self._chains.clear()
        self._queue = FreeQueue()
        self._empty_blocks, self._idle_blocks = self.total_blocks, 0
        return True

    # -- extents ---------------------------------------------------------------------------------

    def _shared_blocks(self, request: EngineRequest) -> int:
        return request.shared_tokens // self.block_tokens

    def _cover(self, name: str | None, start: int, limit: int, parts: list[tuple[Extent, int, int]]) -> int:
        chain = self._chains.get(name) if name is not None else None
        return chain.cover(start, limit, parts) if chain else start

    def _cut(self, extent: Extent, start: int, end: int) -> Extent:
        """The extent of exactly those blocks; what is left of it stays where it is."""
        if end < extent.hi:
            self._split(extent, end)
        return self._split(extent, start) if start > extent.lo else extent

    def _split(self, extent: Extent, at: int) -> Extent:
        upper = extent.split(at)
        if not extent.holders:
            self._queue.insert(upper, after=extent)
        return upper

    def _hold(self, extent: Extent, holder: Holder) -> None:
        if not extent.holders:
            self._queue.remove(extent)
            self._idle_blocks -= extent.hi - extent.lo
        extent.holders.append(holder)

    def _let_go(self, holder: Holder) -> None:
        """Drop the holder's extents, the last first; those that nobody else holds become idle."""
        above: Extent | None = None
        for extent in reversed(holder.extents):
            extent.holders.remove(holder)
            if extent.holders:
                above = None
                continue
            self._idle_blocks += extent.hi - extent.lo
            if above is not None and self._can_merge(extent, above):
                self._queue.remove(above)
                extent.chain.extents.remove(above)
                extent.hi = above.hi
            self._queue.append(extent)
            above = extent

    @staticmethod
    def _can_merge(extent: Extent, above: Extent) -> bool:
        # With a third extent in the chain the order of computation would have to be looked at.
        return extent.chain is above.chain and extent.hi == above.lo and len(extent.chain.extents) == 2

    def _allocate(self, count: int) -> None:
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

    def _forget(self, extent: Extent) -> None:
        chain = extent.chain
        chain.extents.remove(extent)
        if not chain.extents:
            del self._chains[chain.name]

    def _register(self, request: EngineRequest, full_blocks: int) -> None:
        """The request's blocks up to there are full: they can be found from now on."""
        start = request.registered_blocks
        shared = min(self._shared_blocks(request), full_blocks)
        if start < shared:
            assert request.shared_chain is not None
            self._extend(request, request.shared_chain, start, shared)
            start = shared
        if start < full_blocks:
            assert request.chain is not None
            self._extend(request, request.chain, start, full_blocks)
        request.registered_blocks = full_blocks

    def _extend(self, request: EngineRequest, name: str, start: int, end: int) -> None:
        chain = self._chains.get(name)
        if chain is None:
            chain = self._chains[name] = Chain(name)
        if request.extents:
            last = request.extents[-1]
            # Only the extent that was computed last may grow in place: it hides no other.
            if last.chain is chain and chain.extents[-1] is last and len(last.holders) == 1:
                last.hi = end
                return
        extent = Extent(chain, start, end)
        extent.holders.append(request)
        chain.extents.append(extent)
        request.extents.append(extent)

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

What it must equal is ``BlockStore`` with hashes of ``(chain, index)``, and the tests hold it to it: free
blocks that cache nothing go first, then idle ones in the order in which they were freed, tail first.

On top of that it does what our scheduler plugin does in vLLM: it keeps what a request leaves that asks for
it, and ``keep``, ``release``, ``demote`` and ``swap_out`` a chain between two requests. All act on idle
blocks; only ``keep`` may also be said while the chain's request runs, and then applies when it finishes, in
place of what the request asked for.
"""

from collections.abc import Collection
from dataclasses import dataclass
from math import inf

from loadgen.engine.extent_pool import ExtentPool, Parts
from loadgen.engine.extents import Chain
from loadgen.engine.host_tier import HostTier
from loadgen.engine.leases import Ending, Leases
from loadgen.engine.requests import EngineRequest
from loadgen.engine.stores import Hit
from marsproxy.core.commands import YieldsTo


@dataclass(frozen=True, slots=True)
class _Wish:
    """A ``keep`` that waits for the end of the chain's request."""

    ttl_s: float | None
    yields_to: YieldsTo


class ChainStore:
    def __init__(
        self,
        total_blocks: int,
        block_tokens: int = 16,
        *,
        host_blocks: int = 0,
        max_leased_share: float = 1.0,
        max_ttl_s: float = inf,
    ) -> None:
        """``host_blocks`` is the room for chains that are swapped out; 0 has no host tier."""
        self.block_tokens = block_tokens
        self._pool = ExtentPool(total_blocks)
        self._leases = Leases(self._pool, int(max_leased_share * total_blocks))
        self._max_ttl_s = max_ttl_s
        self._host = HostTier(host_blocks)
        self._running: dict[str, int] = {}
        """Requests that run, by chain."""
        self._waiting: dict[str, int] = {}
        """Those that wait and have not run yet."""
        self._forks = 0
        """Of them, those that are not the first of their chain."""
        self._wishes: dict[str, _Wish] = {}

    def __repr__(self) -> str:
        return f"<ChainStore {self.used_blocks} used, {self.free_blocks} free, {self.leased_blocks} leased>"

    @property
    def total_blocks(self) -> int:
        return self._pool.total_blocks

    @property
    def free_blocks(self) -> int:
        return self._pool.free_blocks

    @property
    def used_blocks(self) -> int:
        return self._pool.used_blocks

    @property
    def leased_blocks(self) -> int:
        return self._pool.leased_blocks

    # -- what the scheduler asks -----------------------------------------------------------------

    def check(self, request: EngineRequest) -> None:
        if request.chain is None:
            raise ValueError(f"request {request.request_id}: chain must be named")
        if (request.shared_chain is None) != (request.shared_tokens == 0):
            raise ValueError(f"request {request.request_id}: shared_chain and shared_tokens go together")

    def find(self, request: EngineRequest, limit_blocks: int) -> Hit:
        assert request.chain is not None
        parts: Parts = []
        shared_blocks = self._shared_blocks(request)
        found = self._cover(request.chain, request.shared_chain, shared_blocks, limit_blocks, parts)
        host_blocks = 0
        if self._host.used_blocks and found >= shared_blocks:
            host_blocks = self._host.blocks_from(request.chain, found, limit_blocks)
        return Hit(found, parts, host_blocks)

    def idle_blocks(self, hit: Hit) -> int:
        return sum([end - start for extent, start, end in hit.parts if not extent.holders])

    def take(self, request: EngineRequest, hit: Hit) -> None:
        chain = request.chain
        assert chain is not None
        self._pool.hold_parts(list(hit.parts), request)
        request.held_blocks = request.registered_blocks = hit.blocks
        if hit.host_blocks:
            self._pool.allocate(hit.host_blocks)
            request.held_blocks += hit.host_blocks
            self._register(request, request.held_blocks)
            self._host.drop(chain)
        self._leases.resume(chain, hit.blocks)
        self._stop_waiting(request)
        running = self._running.get(chain, 0)
        self._running[chain] = running + 1
        self._forks += running > 0

    def claim(self, request: EngineRequest) -> None:
        chain = request.chain
        assert chain is not None
        self._waiting[chain] = self._waiting.get(chain, 0) + 1
        self._leases.claim(chain)

    def unclaim(self, request: EngineRequest) -> None:
        assert request.chain is not None
        self._stop_waiting(request)
        self._leases.unclaim(request.chain)

    def is_leased(self, chain: str) -> bool:
        return chain in self._leases

    @property
    def has_forks(self) -> bool:
        return self._forks > 0

    def is_read_by_others(self, request: EngineRequest) -> bool:
        return request.chain in self._running

    def try_grow(self, request: EngineRequest, tokens: int) -> bool:
        full_blocks, rest = divmod(tokens, self.block_tokens)
        missing = full_blocks + (rest > 0) - request.held_blocks
        if missing > 0:
            if missing > self._pool.free_blocks:
                return False
            self._pool.allocate(missing)
            request.held_blocks += missing
        if full_blocks > request.registered_blocks:
            self._register(request, full_blocks)
        request.settle(tokens, self.block_tokens)
        return True

    def free(self, request: EngineRequest, finished_s: float | None = None) -> None:
        if not request.held_blocks:
            return  # it waits
        self._pool.give_back_empty(request.held_blocks - request.registered_blocks)
        self._pool.let_go(request)
        request.let_go()
        self._stopped_running(request, finished_s)

    def try_reset(self) -> bool:
        if self.used_blocks:
            return False
        self._leases.end_all()
        self._pool.empty_all()
        return True

    @property
    def next_expiry_s(self) -> float | None:
        return self._leases.next_expiry_s

    def expire(self, now: float) -> None:
        self._leases.expire(now)

    def can_reclaim(
        self, count: int, yielding: Collection[YieldsTo], request: EngineRequest, hit: Hit | None = None
    ) -> bool:
        if count > self._pool.leased_blocks:
            return False
        parts = list(hit.parts) if hit else []
        return self._leases.can_reclaim(count, yielding, parts, request.chain)

    def reclaim(
        self, count: int, yielding: Collection[YieldsTo], request: EngineRequest, hit: Hit | None = None
    ) -> None:
        self._leases.reclaim(count, yielding, list(hit.parts) if hit else [], request.chain)

    # -- hints -----------------------------------------------------------------------------------

    def keep(self, chain: str, ttl_s: float | None, yields_to: YieldsTo, now: float) -> int:
        """Lease the chain's cached prefix, for ``ttl_s`` or, with None, until its next request; tokens kept.

        0 while its request runs: the lease then begins when that finishes.
        """
        if chain in self._running:
            self._wishes[chain] = _Wish(ttl_s, yields_to)
            return 0
        parts = self._resident(chain)
        longest_s = self._max_ttl_s if ttl_s is None else min(ttl_s, self._max_ttl_s)
        expires_s = None if longest_s == inf else now + longest_s
        claims = self._waiting.get(chain, 0)
        return self._leases.keep(chain, parts, expires_s, yields_to, claims) * self.block_tokens

    def release(self, chain: str) -> None:
        """End the lease: its blocks are idle, as if just freed."""
        self._wishes.pop(chain, None)
        self._leases.end(chain)

    def demote(self, chain: str) -> None:
        """End the lease, and make the chain's own idle blocks the first to be reused."""
        self.release(chain)
        for extent in self._pool.idle_extents(chain):
            self._pool.reuse_first(extent)

    def swap_out(self, chain: str) -> int:
        """End the lease and move the chain's own idle blocks to the host; tokens moved, 0 without a tier."""
        self.release(chain)
        idle = self._pool.idle_extents(chain)
        if not idle or not self._host.capacity_blocks:
            return 0
        lo = hi = idle[0].lo
        for extent in idle:
            if extent.lo <= hi:
                hi = max(hi, extent.hi)
            self._pool.empty(extent)
        self._host.store(chain, lo, hi)
        return (hi - lo) * self.block_tokens

    def resident_tokens(self, chain: str) -> int:
        """What the chain's next request would find on the accelerator, if anything of its own is there."""
        return sum(end - start for _extent, start, end in self._resident(chain)) * self.block_tokens

    @property
    def leased_tokens(self) -> int:
        """Held by leases alone."""
        return self._pool.leased_blocks * self.block_tokens

    def take_endings(self) -> list[Ending]:
        """How leases ended since the last call, but for those that were told to."""
        return self._leases.take_endings()

    # -- names and blocks ------------------------------------------------------------------------

    def _shared_blocks(self, request: EngineRequest) -> int:
        return request.shared_tokens // self.block_tokens

    def _cover(self, chain: str, shared: str | None, shared_blocks: int, limit: int, parts: Parts) -> int:
        found = 0
        if shared_blocks:
            shared_blocks = min(shared_blocks, limit)
            found = self._pool.cover(shared, 0, shared_blocks, parts)
        return found if found < shared_blocks else self._pool.cover(chain, found, limit, parts)

    def _resident(self, name: str) -> Parts:
        """The cached prefix of a chain of which something is cached."""
        parts: Parts = []
        chain = self._pool.chains.get(name)
        if chain is not None:
            self._cover(name, chain.shared_name, chain.shared_blocks, self.total_blocks, parts)
        return parts

    def _register(self, request: EngineRequest, full_blocks: int) -> None:
        """The request's blocks up to there are full: they can be found from now on."""
        start = request.registered_blocks
        shared_blocks = self._shared_blocks(request)
        if start < shared_blocks:
            assert request.shared_chain is not None
            end = min(shared_blocks, full_blocks)
            self._pool.extend(request, self._chain(request.shared_chain), start, end)
            start = end
        if start < full_blocks:
            assert request.chain is not None
            chain = self._chain(request.chain, request.shared_chain, shared_blocks)
            self._pool.extend(request, chain, start, full_blocks)
        request.registered_blocks = full_blocks

    def _chain(self, name: str, shared_name: str | None = None, shared_blocks: int = 0) -> Chain:
        chain = self._pool.chains.get(name)
        if chain is None:
            chain = self._pool.chains[name] = Chain(name, shared_name, shared_blocks)
        return chain

    def _stopped_running(self, request: EngineRequest, finished_s: float | None) -> None:
        chain = request.chain
        assert chain is not None
        self._running[chain] -= 1
        if self._running[chain]:
            self._forks -= 1
            return
        del self._running[chain]
        wish = self._wishes.pop(chain, None) or request.lease
        if wish is not None and finished_s is not None:
            self.keep(chain, wish.ttl_s, wish.yields_to, finished_s)

    def _stop_waiting(self, request: EngineRequest) -> None:
        """One that was preempted and runs again was not counted again."""
        chain = request.chain
        if chain is None or request.scheduled_s is not None:
            return
        waiting = self._waiting.pop(chain, 0) - 1
        if waiting > 0:
            self._waiting[chain] = waiting

"""All leases of one scheduler: their budget, their deadlines, and the order in which they give way.

Knows neither vLLM nor the clock. Theory of operation: a lease holds one reference to each of its blocks. It
ends exactly once: *resumed*, *expired*, *released* (told to, or replaced by a newer one), or *reclaimed*
block by block, tail first, since what is left is still a prefix worth having. While a turn of its session
waits the lease is *claimed*: its deadline does not count until that turn is scheduled or gone.

Reclaiming plans before it takes: either what was asked for becomes free, or nothing is touched.
"""

from bisect import bisect_left
from collections.abc import Collection, Hashable, Iterator, Sequence
from heapq import heapify, heappop, heappush

from backend_patch.ending_log import EndingLog, SessionKey
from backend_patch.holders import Holders
from backend_patch.lease import Block, BlockPool, Lease, Rank
from backend_patch.protocol import Ending, LeaseMode
from backend_patch.reclaim_plan import Cut, plan_reclaim

STALE_DEADLINES = 64
"""Of leases that ended early; more than these and twice the leases, and the heap is made anew."""


class LeaseTable:
    def __init__(self, pool: BlockPool, budget_blocks: int, block_tokens: int, groups: int = 1) -> None:
        """``groups`` of blocks hold the KV of the same tokens, in models with several kinds of attention."""
        self.endings = EndingLog()
        self.budget_blocks = budget_blocks
        self.pinned_total = self.clipped_total = self.rejected_total = 0
        self.claimed_blocks = 0
        """In leases of sessions whose next turn waits."""
        self.changes = 0
        """Counts whatever changed: who could not reclaim enough need not try again before it moves."""
        self._pool = pool
        self._block_tokens = block_tokens
        self._groups = groups
        self._leases: dict[SessionKey, Lease] = {}
        self._ranks: dict[Rank, dict[SessionKey, Lease]] = {rank: {} for rank in Rank}
        """The earliest kept first."""
        self._rank_blocks = dict.fromkeys(Rank, 0)
        self._held: Holders[int] = Holders()
        """By block, the leases that hold it."""
        self._deadlines: list[tuple[float, int, Lease]] = []
        self._numbers = 0
        self._claimed_changes: set[SessionKey] = set()

    def __len__(self) -> int:
        return len(self._leases)

    def __iter__(self) -> Iterator[Lease]:
        return iter(list(self._leases.values()))

    def get(self, key: SessionKey) -> Lease | None:
        return self._leases.get(key)

    @property
    def blocks(self) -> int:
        """Different ones in leases."""
        return len(self._held)

    def count_shared(self) -> int:
        """Leased blocks that requests refer to as well. They are at the beginning of a lease if anywhere, so
        this looks at all leases but hardly at their blocks."""
        seen: set[int] = set()
        for lease in self._leases.values():
            blocks = lease.blocks
            if self._is_leased_only(blocks[0]):
                continue
            for block in reversed(blocks[: bisect_left(blocks, True, key=self._is_leased_only)]):
                if block.block_id in seen:
                    break
                seen.add(block.block_id)
        return len(seen)

    def _is_leased_only(self, block: Block) -> bool:
        return block.ref_cnt == self._held.of(block.block_id)

    def take_claimed_changes(self) -> set[SessionKey] | None:
        """Sessions whose lease began or ended while a turn waited, since the last call; None for none."""
        if not self._claimed_changes:
            return None
        changes, self._claimed_changes = self._claimed_changes, set()
        return changes

    def tokens_of(self, lease: Lease) -> int:
        return self.tokens_in(len(lease.blocks))

    # -- begin and end ---------------------------------------------------------------------------

    def pin(
        self,
        key: SessionKey,
        blocks: Sequence[Block],
        hashes: Sequence[Hashable],
        *,
        mode: LeaseMode,
        expires_at_s: float,
        claims: int = 0,
    ) -> Lease | None:
        """Hold these blocks, or the prefix of them that fits the budget, instead of what was held for the
        key before. None: nothing fits."""
        self.release(key)
        fitting = self._fitting(blocks)
        if not fitting:
            self.rejected_total += 1
            return None
        self._pool.touch(fitting)
        self._held.add([block.block_id for block in fitting])
        self._numbers += 1
        lease = Lease(key, mode, fitting, hashes, self._numbers, expires_at_s, claims)
        self._leases[key] = lease
        self._enter_rank(lease)
        self._push_deadline(lease)
        if claims:
            self._claimed_changes.add(key)
        self.pinned_total += 1
        self.clipped_total += len(fitting) < len(blocks)
        return lease

    def release(self, key: SessionKey) -> None:
        """End the lease, if there is one: its blocks are as if just used."""
        lease = self._leases.get(key)
        if lease is not None:
            self._drop(lease)

    def count_freeable(self, key: SessionKey) -> int:
        """Blocks that a release would make free."""
        lease = self._leases.get(key)
        return sum(block.ref_cnt == 1 for block in lease.blocks) if lease is not None else 0

    def resume(self, key: SessionKey, hit_tokens: int) -> None:
        """End the lease: its next turn has references of its own now."""
        lease = self._leases.get(key)
        if lease is not None:
            tokens = self.tokens_of(lease)
            self._drop(lease)
            self.endings.add(key, Ending.RESUMED, tokens, min(hit_tokens, tokens))

    def release_all(self) -> None:
        for lease in self:
            self._drop(lease)

    def _drop(self, lease: Lease) -> None:
        del self._leases[lease.key]
        self._leave_rank(lease)
        if lease.claims:
            self._claimed_changes.add(lease.key)
        self._let_go(lease.blocks)

    def _let_go(self, blocks: Sequence[Block]) -> None:
        self._held.remove([block.block_id for block in blocks])
        self._pool.free_blocks(reversed(blocks))

    def _fitting(self, blocks: Sequence[Block]) -> list[Block]:
        room = self.budget_blocks - len(self._held)
        if len(blocks) <= room:
            return list(blocks)
        fitting: list[Block] = []
        for block in blocks:
            room -= block.block_id not in self._held
            if room < 0:
                break
            fitting.append(block)
        return fitting

    # -- deadlines and claims --------------------------------------------------------------------

    @property
    def next_expiry_s(self) -> float | None:
        while self._deadlines and not self._counts(self._deadlines[0][2]):
            heappop(self._deadlines)
        return self._deadlines[0][0] if self._deadlines else None

    def expire(self, now: float) -> None:
        while self._deadlines and self._deadlines[0][0] <= now:
            _expires_at_s, _number, lease = heappop(self._deadlines)
            if self._counts(lease):
                tokens = self.tokens_of(lease)
                self._drop(lease)
                self.endings.add(lease.key, Ending.EXPIRED, tokens)

    def claim(self, key: SessionKey) -> None:
        """A turn of the session has arrived and waits."""
        lease = self._leases.get(key)
        if lease is not None:
            self._set_claims(lease, lease.claims + 1)

    def unclaim(self, key: SessionKey) -> None:
        """It has gone away without having been scheduled."""
        lease = self._leases.get(key)
        if lease is not None and lease.claims:
            self._set_claims(lease, lease.claims - 1)
            if not lease.claims:
                self._push_deadline(lease)

    def _set_claims(self, lease: Lease, claims: int) -> None:
        self._leave_rank(lease)
        lease.claims = claims
        self._enter_rank(lease)

    def _counts(self, lease: Lease) -> bool:
        """Whether the deadline is that of a lease that lasts and is not claimed."""
        return self._leases.get(lease.key) is lease and not lease.claims

    def _push_deadline(self, lease: Lease) -> None:
        if len(self._deadlines) > STALE_DEADLINES + 2 * len(self._leases):
            self._deadlines = [each for each in self._deadlines if self._counts(each[2])]
            heapify(self._deadlines)
        self._numbers += 1
        heappush(self._deadlines, (lease.expires_at_s, self._numbers, lease))

    # -- giving way ------------------------------------------------------------------------------

    def may_suffice(self, missing: int, ranks: Collection[Rank], own: SessionKey | None = None) -> bool:
        """False: reclaiming would fail for certain. Looks at totals only."""
        own_lease = self._leases.get(own) if own is not None else None
        most = sum([self._rank_blocks[rank] for rank in ranks]) + (len(own_lease.blocks) if own_lease else 0)
        return most >= missing

    def reclaim(
        self,
        missing: int,
        ranks: Collection[Rank],
        *,
        own: SessionKey | None = None,
        wanted: Collection[int] = (),
        even_less: bool = False,
    ) -> int:
        """Make so many blocks free for somebody before whom leases of these ranks give way; how many are.

        ``own`` is the key of who asks: its lease gives way first, since it ends when the turn is
        scheduled. ``wanted`` are blocks that the turn will refer to itself. 0 if there are not enough,
        unless ``even_less`` will do.
        """
        plan = plan_reclaim(missing, self._willing(ranks, own), self._held, wanted)
        if plan.missing > 0 and not even_less:
            return 0
        for cut in plan.cuts:
            self._cut_back(cut)
        return missing - plan.missing

    def _willing(self, ranks: Collection[Rank], own: SessionKey | None) -> Iterator[Lease]:
        own_lease = self._leases.get(own) if own is not None else None
        if own_lease is not None:
            yield own_lease
        for rank in ranks:
            yield from (lease for lease in self._ranks[rank].values() if lease is not own_lease)

    def _cut_back(self, cut: Cut) -> None:
        lease, count = cut.lease, cut.blocks
        if not count:
            return
        self.endings.add_reclaimed(lease.key, self.tokens_in(count))
        if count == len(lease.blocks):
            self._drop(lease)
            return
        tail = lease.blocks[-count:]
        del lease.blocks[-count:]
        self._count_blocks(lease, -count)
        self._let_go(tail)

    # -- ranks -----------------------------------------------------------------------------------

    def _enter_rank(self, lease: Lease) -> None:
        peers = self._ranks[lease.rank]
        is_latest = not peers or next(reversed(peers.values())).number < lease.number
        peers[lease.key] = lease
        if not is_latest:
            self._ranks[lease.rank] = dict(sorted(peers.items(), key=lambda item: item[1].number))
        self._count_blocks(lease, len(lease.blocks))

    def _leave_rank(self, lease: Lease) -> None:
        del self._ranks[lease.rank][lease.key]
        self._count_blocks(lease, -len(lease.blocks))

    def _count_blocks(self, lease: Lease, blocks: int) -> None:
        self._rank_blocks[lease.rank] += blocks
        if lease.claims:
            self.claimed_blocks += blocks
        self.changes += 1

    def tokens_in(self, blocks: int) -> int:
        return blocks // self._groups * self._block_tokens

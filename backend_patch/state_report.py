"""The engine's state in numbers, as others read it after each step.

Owns the counters that nobody else keeps, and the encoding. Only sums that are kept anyhow go into it: it is
made many times a second.
"""

import time
from typing import TYPE_CHECKING, Any

import msgspec

from backend_patch.protocol import Ending, RankHeadroom
from backend_patch.snapshot import MAX_BYTES

if TYPE_CHECKING:
    from backend_patch.hooks import Hooks

SHARED_INTERVAL_S = 1.0
SHARED_INTERVAL_PER_LEASE_S = 0.002
"""How often a busy engine counts the leased blocks that requests hold too. They are few and change slowly
(system prompts), and to look takes up to two microseconds a lease: a thousandth of the time."""


class StateReport:
    def __init__(self, hooks: "Hooks", rank: int) -> None:
        self.preemptions_total = 0
        self.prefix_queries_total = 0
        self.prefix_hits_total = 0
        self._hooks = hooks
        self._rank = rank
        self._encoder = msgspec.json.Encoder()
        self._shared_blocks = 0
        self._shared_counted_s = float("-inf")

    def encoded(self, scheduler: Any, now: float) -> bytes:
        """With the endings that are kept, as far back as fits a snapshot."""
        state = self._encoder.encode(self._state(scheduler, now))
        endings = self._hooks.leases.endings.encoded(MAX_BYTES - len(state) - len(b',"endings":[]'))
        return state[:-1] + b',"endings":[' + endings + b"]}" if endings else state

    def headroom(self, scheduler: Any, now: float, after: int) -> RankHeadroom:
        self._shared_counted_s = float("-inf")  # an exact answer for who asks
        endings = self._hooks.leases.endings.after(after)
        return msgspec.structs.replace(self._state(scheduler, now), endings=endings)

    def _state(self, scheduler: Any, now: float) -> RankHeadroom:
        hooks = self._hooks
        leases, meters, turns, cache = hooks.leases, hooks.meters, hooks.turns, hooks.cache
        running, waiting = scheduler.get_request_counts()
        totals, next_expiry_s = leases.endings.totals, leases.next_expiry_s
        return RankHeadroom(
            rank=self._rank,
            step=meters.steps,
            at_s=time.time(),
            block_tokens=cache.block_tokens,
            blocks=cache.total_blocks,
            free_blocks=cache.free_blocks,
            leased_blocks=leases.blocks - self._count_shared(bool(scheduler.requests), now),
            claimed_blocks=leases.claimed_blocks,
            running=running,
            waiting=waiting,
            waiting_continuations=turns.waiting_continuations,
            waiting_prefill_tokens=turns.waiting_tokens,
            preemptions_total=self.preemptions_total,
            prefix_queries_total=self.prefix_queries_total,
            prefix_hits_total=self.prefix_hits_total,
            leases=len(leases),
            next_expiry_in_s=None if next_expiry_s is None else max(0.0, next_expiry_s - now),
            step_s=meters.step_s,
            prefill_tokens_per_s=meters.prefill_tokens_per_s,
            decode_tokens_per_s=meters.decode_tokens_per_s,
            pinned_total=leases.pinned_total,
            resumed_total=totals[Ending.RESUMED],
            expired_total=totals[Ending.EXPIRED],
            reclaimed_total=totals[Ending.RECLAIMED],
            rejected_total=leases.rejected_total,
            clipped_total=leases.clipped_total,
            evicted_total=hooks.retention.evicted_total,
            passthrough=hooks.passthrough,
            last_seq=leases.endings.last_seq,
        )

    def _count_shared(self, has_requests: bool, now: float) -> int:
        """Leased blocks that requests hold too. None when there are no requests."""
        leases = self._hooks.leases
        if not has_requests or not len(leases):
            self._shared_blocks, self._shared_counted_s = 0, float("-inf")
        elif now - self._shared_counted_s >= max(
            SHARED_INTERVAL_S, len(leases) * SHARED_INTERVAL_PER_LEASE_S
        ):
            self._shared_blocks, self._shared_counted_s = leases.count_shared(), now
        return min(self._shared_blocks, leases.blocks)

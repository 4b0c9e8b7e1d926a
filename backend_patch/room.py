"""Who may break which leases when vLLM finds no blocks, and how many give way.

Owns the rules of who comes before whom. Those that run come before all leases, continuations before soft
ones, new sessions before open ones only, until they have aged; and when nothing else runs anybody comes
before all of them, so that nobody waits for what nobody gives.
"""

from typing import Any, Protocol

from backend_patch.cache_view import CacheView
from backend_patch.lease import TO_ALL, TO_CONTINUATION, TO_NEW, Rank
from backend_patch.lease_table import LeaseTable
from backend_patch.turns import Turn, Turns


class Scheduler(Protocol):
    """Of vLLM's."""

    running: list[Any]
    scheduler_config: Any
    num_lookahead_tokens: int
    """Of speculative decoding."""

    def get_request_counts(self) -> tuple[int, int]:
        """Running, waiting."""


class Room:
    def __init__(self, scheduler: Scheduler, cache: CacheView, leases: LeaseTable, turns: Turns) -> None:
        self._scheduler = scheduler
        self._cache = cache
        self._leases = leases
        self._turns = turns
        tokens = cache.block_tokens
        self._step_blocks: int = cache.groups * (
            scheduler.scheduler_config.max_num_batched_tokens // tokens + 1
        )
        """That all tokens of a step can fill, and beside them those that each request begins."""
        self._blocks_each = cache.groups * (2 + scheduler.num_lookahead_tokens // tokens)
        self._refused: tuple[object, ...] = ()
        """What was asked in vain, and need not be looked into again before something has changed."""

    def may_run_short(self) -> bool:
        """Whether somebody might find no blocks in a step while leases hold some. Errs on the safe side."""
        if not len(self._leases):
            return False
        running, waiting = self._scheduler.get_request_counts()
        if waiting > self._turns.waiting:
            return True  # preempted ones, of which nothing is known here
        most = self._step_blocks + (running + waiting) * self._blocks_each
        if waiting:
            most += self._cache.groups * self._turns.waiting_prompt_tokens // self._cache.block_tokens
        return self._cache.free_blocks < most

    def make(
        self, request: Any, new_tokens: int, asked: dict[str, Any], attempt: int, aged_before_s: float
    ) -> bool:
        """vLLM found no blocks for this request: whether any became free, so that it may ask again.
        ``asked`` are the other arguments of its question. Each attempt for one question takes twice as many
        at least as the one before."""
        if not len(self._leases):
            return False
        running = self._scheduler.running
        is_alone = not running or (len(running) == 1 and running[0] is request)
        turn = self._turns.get(request.request_id)
        ranks = TO_ALL if is_alone else yielding(request.status.name, turn, aged_before_s)
        own = turn.key if turn is not None and request.status.name != "RUNNING" else None
        missing = max(self._cache.missing(request, new_tokens, asked), 1 << attempt >> 1)
        question = (request.request_id, missing, ranks, len(running), self._leases.changes)
        if question == self._refused:
            return False
        freed = 0
        if is_alone or self._leases.may_suffice(missing, ranks, own):
            wanted = self._cache.wanted(asked)
            freed = self._leases.reclaim(missing, ranks, own=own, wanted=wanted, even_less=is_alone)
        if not freed:
            self._refused = question
        return freed > 0


def yielding(status: str, turn: Turn | None, aged_before_s: float) -> tuple[Rank, ...]:
    """The leases that give way to a request while others run."""
    if status == "RUNNING":
        return TO_ALL
    if status == "PREEMPTED" or (turn is not None and turn.is_continuation):
        return TO_CONTINUATION
    has_aged = turn is not None and turn.queued_at_s < aged_before_s
    return TO_CONTINUATION if has_aged else TO_NEW

"""What the scheduler asks of a KV cache, and the store that keeps every block.

Two stores serve the same scheduler. ``BlockStore`` is vLLM's block pool with real hashes: the realtime
engine's, because there prompts are texts. ``loadgen.engine.chains.ChainStore`` knows a session's context
by name and keeps runs of blocks: the simulator's, because its cost does not grow with the context.

A store fills ``EngineRequest.held_blocks``, ``registered_blocks`` and ``settled_tokens`` in; the scheduler
reads them and nothing else of what a request holds.
"""

from collections.abc import Collection, Sequence
from dataclasses import dataclass
from typing import Any, Protocol

from loadgen.engine.blocks import BlockPool
from loadgen.engine.requests import EngineRequest
from marsproxy.core.commands import YieldsTo


@dataclass(frozen=True, slots=True)
class Hit:
    """The cached prefix of a request, found but not yet taken."""

    blocks: int
    """Of the prefix, on the accelerator."""
    parts: Sequence[Any]
    """Where they are, in the store's own terms."""
    host_blocks: int = 0
    """What follows them in the host's memory: cached too, but they need new blocks and have to be copied."""


class KvStore(Protocol):
    @property
    def total_blocks(self) -> int: ...
    @property
    def free_blocks(self) -> int: ...
    @property
    def used_blocks(self) -> int:
        """Those that requests refer to."""

    def check(self, request: EngineRequest) -> None:
        """Raise ``ValueError`` if the request lacks what this store knows prefixes by."""

    def claim(self, request: EngineRequest) -> None:
        """It waits from now on, for the first time."""

    def unclaim(self, request: EngineRequest) -> None:
        """It is gone, and was never scheduled."""

    def is_leased(self, chain: str) -> bool: ...

    def find(self, request: EngineRequest, limit_blocks: int) -> Hit:
        """The longest cached prefix of at most that many blocks; changes nothing."""

    def idle_blocks(self, hit: Hit) -> int:
        """How many of the hit's blocks would leave the free queue if it were taken."""

    def take(self, request: EngineRequest, hit: Hit) -> None: ...

    @property
    def has_forks(self) -> bool:
        """Whether two requests that run go on with the same text."""

    def is_read_by_others(self, request: EngineRequest) -> bool:
        """Whether requests that run may add to the cached prefix of this one while they decode."""

    def try_grow(self, request: EngineRequest, tokens: int) -> bool:
        """Blocks for that many tokens in all, full ones findable. False and no change if too few are free."""

    def free(self, request: EngineRequest, finished_s: float | None = None) -> None:
        """Give back all that the request holds, its last block first; None says that it has not finished."""

    @property
    def next_expiry_s(self) -> float | None:
        """When the next lease ends; None if none will."""

    def expire(self, now: float) -> None:
        """End the leases whose time is up."""

    def can_reclaim(
        self, count: int, yielding: Collection[YieldsTo], request: EngineRequest, hit: Hit | None = None
    ) -> bool:
        """Whether leases of those kinds could free that many blocks for the request without its hit's."""

    def reclaim(
        self, count: int, yielding: Collection[YieldsTo], request: EngineRequest, hit: Hit | None = None
    ) -> None:
        """Free them; the hit has to be found again."""

    def try_reset(self) -> bool:
        """Forget every cached prefix; refused while any block is in use, as vLLM does."""


class BlockStore(BlockPool):
    """A block pool that deals with requests: prefixes are known by ``EngineRequest.block_hashes``."""

    def __init__(self, total_blocks: int, block_tokens: int) -> None:
        super().__init__(total_blocks)
        self._block_tokens = block_tokens

    def check(self, request: EngineRequest) -> None:
        full_blocks = (request.prompt_tokens + request.output_tokens) // self._block_tokens
        if len(request.block_hashes) < full_blocks:
            raise ValueError(f"request {request.request_id}: block_hashes for {full_blocks} blocks needed")

    def find(self, request: EngineRequest, limit_blocks: int) -> Hit:
        blocks = self.longest_hit(request.block_hashes, limit_blocks)
        return Hit(len(blocks), blocks)

    def idle_blocks(self, hit: Hit) -> int:
        return self.idle_among(hit.parts)

    has_forks = False
    """Unknown here; only merged runs ask, and those are the simulator's, which has chains."""

    def is_read_by_others(self, request: EngineRequest) -> bool:
        return False

    def take(self, request: EngineRequest, hit: Hit) -> None:
        self.touch(hit.parts)
        request.blocks = list(hit.parts)
        request.held_blocks = request.registered_blocks = hit.blocks

    def try_grow(self, request: EngineRequest, tokens: int) -> bool:
        missing = -(-tokens // self._block_tokens) - request.held_blocks
        if missing > 0:
            if missing > self.free_blocks:
                return False
            request.blocks += self.allocate(missing)
            request.held_blocks += missing
        for index in range(request.registered_blocks, tokens // self._block_tokens):
            self.register(request.blocks[index], request.block_hashes[index])
            request.registered_blocks = index + 1
        request.settle(tokens, self._block_tokens)
        return True

    next_expiry_s = None

    def claim(self, request: EngineRequest) -> None:
        """There are no leases here: only the simulator gives hints."""

    def unclaim(self, request: EngineRequest) -> None: ...

    def is_leased(self, chain: str) -> bool:
        return False

    def expire(self, now: float) -> None: ...

    def can_reclaim(
        self, count: int, yielding: Collection[YieldsTo], request: EngineRequest, hit: Hit | None = None
    ) -> bool:
        return False

    def reclaim(
        self, count: int, yielding: Collection[YieldsTo], request: EngineRequest, hit: Hit | None = None
    ) -> None:
        raise AssertionError("nothing is ever reclaimable")

    def free(self, request: EngineRequest, finished_s: float | None = None) -> None:
        self.release(request.blocks[::-1])
        request.blocks = []
        request.let_go()

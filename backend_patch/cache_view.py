"""vLLM's KV cache manager as the leases see it: what is cached, what is missing, what goes first.

Owns the knowledge of the manager's members (vLLM 0.28 to 0.33); imports nothing of vLLM. Blocks of another
pool than the manager's own (0.30 and later may have several) and the null block are never handed out.
"""

from collections.abc import Hashable, Iterable, Sequence
from itertools import zip_longest
from typing import Any

from backend_patch.lease import Block


class CacheView:
    def __init__(self, manager: Any, block_tokens: int, hash_tokens: int, *, has_host_tier: bool) -> None:
        """``manager`` is a ``KVCacheManager``; ``block_tokens`` and ``hash_tokens`` are the scheduler's."""
        self.has_host_tier = has_host_tier
        self.block_tokens = block_tokens
        self.hash_tokens = hash_tokens
        self.pool: Any = manager.block_pool
        self.groups = max(1, len(manager.kv_cache_config.kv_cache_groups))
        self._manager = manager
        self._blocks_have_pools = hasattr(getattr(self.pool, "null_block", None), "pool")
        self._queue_can_prepend = hasattr(getattr(self.pool, "free_block_queue", None), "prepend_n")

    @property
    def total_blocks(self) -> int:
        """Without the null block."""
        return int(self.pool.num_gpu_blocks) - 1

    @property
    def free_blocks(self) -> int:
        return int(self.pool.get_num_free_blocks())

    def blocks_in(self, hashes: int) -> int:
        return hashes * self.hash_tokens // self.block_tokens * self.groups

    def cached(self, hashes: Sequence[Hashable]) -> list[Block]:
        if not hashes:
            return []
        groups, *_rest = self._manager.coordinator.find_longest_cache_hit(
            hashes, len(hashes) * self.hash_tokens
        )
        return self._ours(groups)

    def of_request(self, request_id: str) -> list[Block]:
        """What a request holds and others may find, first block first."""
        return self._ours(self._manager.get_blocks(request_id).blocks)

    def reuse_first(self, blocks: Sequence[Block]) -> int:
        idle: list[Any] = [block for block in blocks if not block.ref_cnt]
        if not self._queue_can_prepend:
            return 0  # they stay where a release has put them, the last to be reused
        queue = self.pool.free_block_queue
        for block in idle:
            queue.remove(block)
        queue.prepend_n(idle)
        return len(idle)

    def evict(self, blocks: Sequence[Block]) -> int:
        idle = [block for block in blocks if not block.ref_cnt]
        self.pool.touch(idle)
        self.pool.evict_blocks({block.block_id for block in idle})
        self.pool.free_blocks(idle)  # without a hash they are the first to be reused
        return len(idle)

    def missing(self, request: Any, new_tokens: int, asked: dict[str, Any]) -> int:
        """How many more free blocks ``allocate_slots`` would have needed, by its own two sums; at least 1.

        Exact for one group of full attention. With several groups it is the share of one, the least it can
        be: whoever asks must be ready to ask again.
        """
        hit, length = self._first_group(asked.get("new_computed_blocks")), self._manager.max_model_len
        idle_hit = sum(block.ref_cnt == 0 and not block.is_null for block in hit)
        held = len(
            self._manager.coordinator.single_type_managers[0].req_to_blocks.get(request.request_id, ())
        )
        watermark = self._watermark(request, asked)
        computed = request.num_computed_tokens + asked.get("num_new_computed_tokens", 0)
        tokens = computed + asked.get("num_external_computed_tokens", 0) + new_tokens
        tokens += asked.get("num_lookahead_tokens", 0)
        needed = self._blocks_for(min(tokens, length)) + asked.get("reserved_blocks", 0)
        if asked.get("full_sequence_must_fit"):
            needed = max(needed, self._blocks_for(min(request.num_tokens, length)))
        return max(1, int(needed + watermark + idle_hit - held - len(hit) - self.free_blocks))

    def wanted(self, asked: dict[str, Any]) -> set[int]:
        """Blocks that the request is about to refer to."""
        hit = asked.get("new_computed_blocks")
        groups: Iterable[Any] = hit.blocks if hit is not None else ()
        return {block.block_id for group in groups for block in group}

    def _first_group(self, computed: Any) -> Sequence[Any]:
        return computed.blocks[0] if computed is not None and computed.blocks else ()

    def _watermark(self, request: Any, asked: dict[str, Any]) -> int:
        is_new = request.status.name in ("WAITING", "PREEMPTED")
        applies = is_new and asked.get("has_scheduled_reqs", True)
        return int(getattr(self._manager, "watermark_blocks", 0)) if applies else 0

    def _blocks_for(self, tokens: int) -> int:
        return -(-tokens // self.block_tokens)

    def _ours(self, groups: Sequence[Sequence[Any]]) -> list[Block]:
        """Hashed ones of our pool. Several groups are woven together, so that a prefix of the list is one
        of the sequence."""
        woven = groups[0] if len(groups) == 1 else _woven(groups)
        blocks = [block for block in woven if block.block_hash is not None and not block.is_null]
        if not self._blocks_have_pools:
            return blocks
        pools = (None, self.pool)
        return [block for block in blocks if block.pool in pools]


def _woven(groups: Sequence[Sequence[Any]]) -> list[Any]:
    return [block for row in zip_longest(*groups) for block in row if block is not None]

"""vLLM's KV cache manager and scheduler, as far as the patch touches them, on ``FakePool``'s semantics."""

from collections.abc import Hashable, Iterable, Sequence
from dataclasses import dataclass, field
from types import SimpleNamespace
from typing import Any

from backend_patch.cache_view import CacheView
from tests.backend_patch.fake_pool import BLOCK_TOKENS, FakePool


@dataclass(eq=False)
class ManagedBlock:
    block_id: int
    ref_cnt: int = 0
    block_hash: Hashable | None = None
    is_null: bool = False
    pool: object = None


class FakeQueue:
    """Of free blocks."""

    def __init__(self, pool: "ManagedPool") -> None:
        self._pool = pool

    def remove(self, block: Any) -> None:
        self._pool.free.remove(block)

    def prepend_n(self, blocks: list[Any]) -> None:
        self._pool.free[:0] = blocks


class ManagedPool(FakePool):
    def __post_init__(self) -> None:
        super().__post_init__()
        self.blocks = [ManagedBlock(number) for number in range(self.size)]  # type: ignore[misc]
        self.free = list(self.blocks)
        self.null_block = ManagedBlock(-1, is_null=True)
        self.num_gpu_blocks = self.size + 1
        self.free_block_queue = FakeQueue(self)

    def get_num_free_blocks(self) -> int:
        return len(self.free)

    def evict_blocks(self, block_ids: Iterable[int]) -> None:
        for block_id in block_ids:
            self.blocks[block_id].block_hash = None

    def free_blocks(self, ordered_blocks: Iterable[Any]) -> None:
        blocks = list(ordered_blocks)
        super().free_blocks(blocks)
        for block in blocks:
            if not block.ref_cnt and block.block_hash is None:
                self.free.remove(block)
                self.free.insert(0, block)


class FakeManager:
    def __init__(self, blocks: int, groups: int = 1) -> None:
        self.block_pool = ManagedPool(blocks)
        self.req_to_blocks: dict[str, list[Any]] = {}
        self.kv_cache_config = SimpleNamespace(kv_cache_groups=[object()] * groups)
        self.max_model_len = 10_000
        self.watermark_blocks = 0
        manager = SimpleNamespace(req_to_blocks=self.req_to_blocks)
        self.coordinator = SimpleNamespace(find_longest_cache_hit=self._find, single_type_managers=[manager])

    def get_blocks(self, request_id: str) -> Any:
        return SimpleNamespace(blocks=(self.req_to_blocks.get(request_id, []),))

    def _find(self, hashes: Sequence[Hashable], max_tokens: int) -> tuple[Any, int, int]:
        blocks = self.block_pool.cached(hashes)[: max_tokens // BLOCK_TOKENS]
        return (blocks,), len(blocks) * BLOCK_TOKENS, 0


def view(manager: FakeManager, *, has_host_tier: bool = False) -> CacheView:
    return CacheView(manager, BLOCK_TOKENS, BLOCK_TOKENS, has_host_tier=has_host_tier)


@dataclass(eq=False)
class FakeRequest:
    request_id: str
    num_tokens: int = 64
    num_computed_tokens: int = 0
    session_id: str | None = None
    priority: int = 0
    arrival_time: float = 0.0
    is_prefill_chunk: bool = False
    status_name: str = "WAITING"
    block_hashes: list[Hashable] = field(default_factory=list)
    extra_args: dict[str, Any] = field(default_factory=dict)

    @property
    def sampling_params(self) -> Any:
        return SimpleNamespace(extra_args=self.extra_args)

    @property
    def status(self) -> Any:
        return SimpleNamespace(name=self.status_name)


class FakeScheduler:
    def __init__(self) -> None:
        self.running: list[Any] = []
        self.requests: dict[str, Any] = {}
        self.num_lookahead_tokens = 0
        self.scheduler_config = SimpleNamespace(long_prefill_token_threshold=0, max_num_batched_tokens=256)

    def get_request_counts(self) -> tuple[int, int]:
        return len(self.running), len(self.requests) - len(self.running)


def step_output(scheduled: dict[str, int], new: dict[str, int], resumed: Sequence[str] = ()) -> Any:
    """``new`` is by request what was found in the cache."""
    return SimpleNamespace(
        num_scheduled_tokens=scheduled,
        total_num_scheduled_tokens=sum(scheduled.values()),
        scheduled_new_reqs=[
            SimpleNamespace(req_id=name, num_computed_tokens=hit) for name, hit in new.items()
        ],
        scheduled_cached_reqs=SimpleNamespace(resumed_req_ids=set(resumed)),
    )

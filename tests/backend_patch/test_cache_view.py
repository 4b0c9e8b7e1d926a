"""What is read from vLLM's KV cache manager, on one of our own."""

from types import SimpleNamespace
from typing import Any

import pytest

from tests.backend_patch.fake_manager import FakeManager, FakeRequest, view
from tests.backend_patch.fake_pool import sequence


def test_totals() -> None:
    """The null block is nobody's."""
    cache = view(FakeManager(20))
    assert (cache.total_blocks, cache.free_blocks, cache.blocks_in(3)) == (20, 20, 3)


def test_cached_prefix() -> None:
    """First block first; of nothing nothing."""
    manager = FakeManager(20)
    hashes = sequence("a", 5)
    manager.block_pool.end(manager.block_pool.run(hashes[:3]))
    cache = view(manager)
    assert [block.block_hash for block in cache.cached(hashes)] == ["a0", "a1", "a2"]  # type: ignore[attr-defined]
    assert cache.cached([]) == []


def test_only_our_own_findable_blocks() -> None:
    """Not the one that is not full, the null block, or another pool's."""
    manager = FakeManager(20)
    blocks: list[Any] = manager.block_pool.run(sequence("a", 5))
    blocks[1].pool, blocks[2].pool = manager.block_pool, object()
    blocks[4].block_hash = None
    manager.req_to_blocks["r"] = [manager.block_pool.null_block, *blocks]
    assert view(manager).of_request("r") == [blocks[0], blocks[1], blocks[3]]


def test_several_groups_are_woven() -> None:
    """So that the first half of the list is the first half of the text."""
    manager = FakeManager(20, groups=2)
    long, short = manager.block_pool.run(sequence("a", 3)), manager.block_pool.run(sequence("b", 2))
    manager.get_blocks = lambda _: SimpleNamespace(blocks=(long, short))  # type: ignore[method-assign]
    found = view(manager).of_request("r")
    assert found == [long[0], short[0], long[1], short[1], long[2]]


def test_reuse_first_and_evict() -> None:
    """Only those that nobody holds; evicted ones are not found again."""
    manager = FakeManager(6)
    pool = manager.block_pool
    pool.end(pool.run(sequence("old", 2)))
    pool.end(pool.run(sequence("young", 2)))
    pool.run(sequence("young", 1))
    cache = view(manager)
    assert cache.reuse_first(cache.cached(sequence("young", 2))) == 1
    assert [block.block_hash for block in pool.free] == ["young1", None, None, "old1", "old0"]
    assert cache.evict(cache.cached(sequence("old", 2))) == 2
    assert cache.cached(sequence("old", 2)) == []
    assert [block.block_hash for block in pool.free[:2]] == [None, None]


def test_older_queue_cannot_put_in_front() -> None:
    """The blocks stay where a release puts them."""
    manager = FakeManager(6)
    manager.block_pool.free_block_queue = object()  # type: ignore[assignment]
    manager.block_pool.end(manager.block_pool.run(sequence("a", 2)))
    cache = view(manager)
    assert cache.reuse_first(cache.cached(sequence("a", 2))) == 0


@pytest.mark.parametrize(
    ("asked", "missing"),
    [
        ({}, 1),
        ({"num_lookahead_tokens": 33}, 2),
        ({"full_sequence_must_fit": True}, 5),
        ({"reserved_blocks": 2}, 2),
        ({"num_new_computed_tokens": 32, "num_external_computed_tokens": 16}, 3),
    ],
)
def test_missing_blocks(asked: dict[str, Any], missing: int) -> None:
    """Of a request with 100 tokens to be computed in a pool with seven free blocks, less one that it holds;
    at least one, as it was refused."""
    manager = FakeManager(8)
    manager.req_to_blocks["r"] = list(manager.block_pool.run(["x"]))
    request = FakeRequest("r", num_tokens=200, num_computed_tokens=16)
    assert view(manager).missing(request, 100, asked) == missing


def test_missing_with_a_hit_and_a_watermark() -> None:
    """A hit that nobody holds leaves the free blocks; the watermark is for those who wait."""
    manager = FakeManager(8)
    pool = manager.block_pool
    pool.end(pool.run(sequence("a", 3)))
    pool.run(sequence("b", 4))
    manager.watermark_blocks = 2
    hit = SimpleNamespace(blocks=(pool.cached(sequence("a", 3)),))
    asked = {"new_computed_blocks": hit, "num_new_computed_tokens": 48, "has_scheduled_reqs": True}
    request = FakeRequest("r", num_tokens=112)
    cache = view(manager)
    assert cache.missing(request, 64, asked) == 7 + 2 - 4
    assert cache.missing(request, 64, {**asked, "has_scheduled_reqs": False}) == 7 - 4
    assert len(cache.wanted(asked)) == 3
    assert cache.wanted({}) == set()

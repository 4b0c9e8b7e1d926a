"""The prefix cache: what is found, what is reused first, who may share."""

import pytest

from loadgen.engine.blocks import BlockPool


def cache(pool: BlockPool, *hashes: int) -> list[int]:
    blocks = pool.allocate(len(hashes))
    for block, prefix_hash in zip(blocks, hashes, strict=True):
        pool.register(block, prefix_hash)
    return blocks


def test_a_freed_prefix_is_found_until_its_blocks_are_handed_out_again() -> None:
    pool = BlockPool(4)
    blocks = cache(pool, 1, 2)
    pool.release(blocks[::-1])

    assert pool.free_blocks == 4
    assert pool.longest_hit([1, 2, 3], 3) == blocks
    pool.allocate(2)  # the two that never held anything
    assert pool.longest_hit([1, 2, 3], 3) == blocks
    pool.allocate(1)
    assert pool.longest_hit([1, 2, 3], 3) == blocks[:1], "the tail goes first"


def test_the_hit_stops_at_the_first_gap_and_at_the_limit() -> None:
    pool = BlockPool(4)
    blocks = cache(pool, 1, 2, 3)

    assert pool.longest_hit([1, 9, 3], 3) == blocks[:1]
    assert pool.longest_hit([1, 2, 3], 2) == blocks[:2]
    assert pool.longest_hit([9, 2, 3], 3) == []


def test_unhashed_blocks_are_reused_before_any_cached_one() -> None:
    pool = BlockPool(3)
    cached = cache(pool, 1, 2)
    partial = pool.allocate(1)
    pool.release(cached[::-1])
    pool.release(partial)

    assert pool.allocate(3) == [*partial, cached[1], cached[0]]


def test_least_recently_freed_goes_first() -> None:
    pool = BlockPool(4)
    first, second = cache(pool, 1, 2), cache(pool, 11, 12)
    pool.release(second[::-1])
    pool.release(first[::-1])

    assert pool.allocate(4) == [second[1], second[0], first[1], first[0]]


def test_touch_renews() -> None:
    pool = BlockPool(2)
    old, new = cache(pool, 1), cache(pool, 2)
    pool.release(old)
    pool.release(new)
    pool.touch(old)
    pool.release(old)

    assert pool.allocate(1) == new


def test_a_shared_block_is_free_only_when_the_last_holder_lets_go() -> None:
    pool = BlockPool(2)
    blocks = cache(pool, 1)
    pool.touch(blocks)
    pool.release(blocks)
    assert (pool.used_blocks, pool.references(blocks[0])) == (1, 1)
    pool.release(blocks)
    assert (pool.used_blocks, pool.references(blocks[0])) == (0, 0)


def test_equal_prefixes_in_two_blocks_survive_the_loss_of_one() -> None:
    pool = BlockPool(2)
    first, second = cache(pool, 7), cache(pool, 7)
    assert pool.cached_blocks == 1
    pool.release(first)
    assert pool.allocate(1) == first
    assert pool.longest_hit([7], 1) == second
    pool.release(second)
    assert pool.allocate(1) == second
    assert pool.longest_hit([7], 1) == []


def test_reset_is_refused_while_anything_is_in_use() -> None:
    pool = BlockPool(2)
    blocks = cache(pool, 1)
    assert not pool.try_reset()
    pool.release(blocks)
    assert pool.try_reset()
    assert pool.longest_hit([1], 1) == []
    assert pool.free_blocks == 2


def test_misuse_is_caught() -> None:
    pool = BlockPool(1)
    block = pool.allocate(1)
    with pytest.raises(AssertionError, match="1 blocks asked, 0 free"):
        pool.allocate(1)
    pool.release(block)
    with pytest.raises(AssertionError, match="released twice"):
        pool.release(block)
    with pytest.raises(ValueError, match="total_blocks must be at least 1"):
        BlockPool(0)


def test_repr_says_the_state() -> None:
    pool = BlockPool(3)
    cache(pool, 1)
    assert repr(pool) == "<BlockPool 1 used, 2 free, 1 cached>"

"""Paged KV blocks with a prefix cache, as vLLM V1 keeps them.

Owns which block is free, who holds how many references to it and which token prefix it contains. A
block's *hash* stands for all tokens from the start of the sequence to the block's end, so equal
hashes mean equal prefixes. Knows nothing of requests, time or tokens.

Rules taken from vLLM 0.32 (``v1/core/block_pool.py``):

* The free queue is LRU. A freed block that carries a hash goes to the tail and stays findable until
  it is handed out again; one without a hash goes to the head, because nobody can ever hit it.
* Callers free a sequence tail first, so its head, which others are likelier to share, lives longest.
* A hit takes the block out of the free queue; allocation takes from the head and forgets the hash.
"""

from collections import OrderedDict
from collections.abc import Sequence


class BlockPool:
    def __init__(self, total_blocks: int) -> None:
        if total_blocks < 1:
            raise ValueError(f"total_blocks must be at least 1, not {total_blocks}")
        self.total_blocks = total_blocks
        self._references = [0] * total_blocks
        self._hash_of: list[int | None] = [None] * total_blocks
        self._free: OrderedDict[int, None] = OrderedDict.fromkeys(range(total_blocks))
        self._block_of: dict[int, int] = {}
        # Two requests that compute the same prefix at once leave equal blocks: the copies wait here
        # until the first is reused.
        self._copies_of: dict[int, list[int]] = {}

    def __repr__(self) -> str:
        return f"<BlockPool {self.used_blocks} used, {self.free_blocks} free, {self.cached_blocks} cached>"

    @property
    def free_blocks(self) -> int:
        return len(self._free)

    @property
    def used_blocks(self) -> int:
        return self.total_blocks - len(self._free)

    @property
    def cached_blocks(self) -> int:
        """Distinct prefixes that a request could hit, in use or free."""
        return len(self._block_of)

    def references(self, block: int) -> int:
        return self._references[block]

    def longest_hit(self, hashes: Sequence[int], limit_blocks: int) -> list[int]:
        """Cached blocks of the longest prefix of ``hashes[:limit_blocks]``, without touching them."""
        hit: list[int] = []
        block_of = self._block_of
        for index in range(min(limit_blocks, len(hashes))):
            block = block_of.get(hashes[index])
            if block is None:
                break
            hit.append(block)
        return hit

    def idle_among(self, blocks: Sequence[int]) -> int:
        """How many of these a ``touch`` would take out of the free queue."""
        return sum(1 for block in blocks if not self._references[block])

    def touch(self, blocks: Sequence[int]) -> None:
        """Take one more reference to each."""
        for block in blocks:
            if not self._references[block]:
                del self._free[block]
            self._references[block] += 1

    def allocate(self, count: int) -> list[int]:
        """Take the ``count`` blocks that were free longest; what they cached is forgotten."""
        assert count <= len(self._free), f"{count} blocks asked, {len(self._free)} free"
        blocks = []
        for _ in range(count):
            block, _none = self._free.popitem(last=False)
            self._forget(block)
            self._references[block] = 1
            blocks.append(block)
        return blocks

    def register(self, block: int, prefix_hash: int) -> None:
        """The block is full and now holds the prefix of that hash."""
        assert self._hash_of[block] is None, f"block {block} has a hash already"
        self._hash_of[block] = prefix_hash
        if prefix_hash in self._block_of:
            self._copies_of.setdefault(prefix_hash, []).append(block)
        else:
            self._block_of[prefix_hash] = block

    def release(self, blocks: Sequence[int]) -> None:
        """Drop one reference to each, the first to be reused first."""
        unfindable = []
        for block in blocks:
            self._references[block] -= 1
            assert self._references[block] >= 0, f"block {block} released twice"
            if self._references[block]:
                continue
            if self._hash_of[block] is None:
                unfindable.append(block)
            else:
                self._free[block] = None
        for block in reversed(unfindable):
            self._free[block] = None
            self._free.move_to_end(block, last=False)

    def try_reset(self) -> bool:
        """Forget every cached prefix; refused while any block is in use, as vLLM does."""
        if self.used_blocks:
            return False
        self._hash_of = [None] * self.total_blocks
        self._block_of.clear()
        self._copies_of.clear()
        return True

    def _forget(self, block: int) -> None:
        prefix_hash = self._hash_of[block]
        if prefix_hash is None:
            return
        self._hash_of[block] = None
        copies = self._copies_of.get(prefix_hash)
        if copies is None:
            del self._block_of[prefix_hash]
            return
        if self._block_of[prefix_hash] == block:
            self._block_of[prefix_hash] = copies.pop(0)
        else:
            copies.remove(block)
        if not copies:
            del self._copies_of[prefix_hash]

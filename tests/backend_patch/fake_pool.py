"""A block pool and its prefix cache, with vLLM's semantics in forty lines, and requests that use it."""

from collections.abc import Hashable, Iterable, Sequence
from dataclasses import dataclass, field

BLOCK_TOKENS = 16


@dataclass(eq=False)
class FakeBlock:
    block_id: int
    ref_cnt: int = 0
    block_hash: Hashable | None = None

    def __repr__(self) -> str:
        return f"<{self.block_id}: {self.ref_cnt} {self.block_hash}>"


@dataclass
class FakePool:
    """Also the cache that ``Retention`` sees."""

    size: int
    has_host_tier: bool = False
    hash_tokens: int = BLOCK_TOKENS
    blocks: list[FakeBlock] = field(default_factory=list)
    free: list[FakeBlock] = field(default_factory=list)
    """The one to be reused next comes first."""

    def __post_init__(self) -> None:
        self.blocks = [FakeBlock(number) for number in range(self.size)]
        self.free = list(self.blocks)

    def touch(self, blocks: Iterable[FakeBlock]) -> None:
        for block in blocks:
            if not block.ref_cnt:
                self.free.remove(block)
            block.ref_cnt += 1

    def free_blocks(self, ordered_blocks: Iterable[FakeBlock]) -> None:
        for block in ordered_blocks:
            assert block.ref_cnt > 0, "freed once too often"
            block.ref_cnt -= 1
            if not block.ref_cnt:
                self.free.append(block)

    # -- the cache -------------------------------------------------------------------------------

    def cached(self, hashes: Sequence[Hashable]) -> list[FakeBlock]:
        known = {block.block_hash: block for block in self.blocks if block.block_hash is not None}
        found: list[FakeBlock] = []
        for each in hashes:
            if each not in known:
                break
            found.append(known[each])
        return found

    def blocks_in(self, hashes: int) -> int:
        return hashes

    def reuse_first(self, blocks: Sequence[FakeBlock]) -> int:
        idle = [block for block in blocks if not block.ref_cnt]
        self.free = idle + [block for block in self.free if block not in idle]
        return len(idle)

    def evict(self, blocks: Sequence[FakeBlock]) -> int:
        idle = [block for block in blocks if not block.ref_cnt]
        for block in idle:
            block.block_hash = None
        return self.reuse_first(idle)

    # -- requests --------------------------------------------------------------------------------

    def run(self, hashes: Sequence[Hashable]) -> list[FakeBlock]:
        """Blocks of a request with this sequence: those cached, and new ones for the rest."""
        held = self.cached(hashes)
        self.touch(held)
        for each in hashes[len(held) :]:
            block = self.free.pop(0)
            block.ref_cnt, block.block_hash = 1, each
            held.append(block)
        return held

    def end(self, blocks: Sequence[FakeBlock]) -> None:
        self.free_blocks(reversed(blocks))


def sequence(name: str, length: int, shared: Sequence[Hashable] = ()) -> list[Hashable]:
    """Hashes of a sequence of its own after what it shares."""
    return [*shared, *(f"{name}{number}" for number in range(length - len(shared)))]

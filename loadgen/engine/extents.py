"""Runs of KV blocks, and the queue in which idle ones wait to be reused. Knows no tokens and no time.

A *chain* is the sequence of blocks of one text; a block is known by its index from the text's start. An
*extent* is a run of a chain's blocks in one state: used by requests, leased, or idle in the free queue.
vLLM frees a sequence tail first, so an idle extent is reused from its end, block by block.
"""

from __future__ import annotations

from collections.abc import Iterator
from typing import ClassVar, Protocol


class Holder(Protocol):
    """Who keeps extents from being reused: a running request, or a lease."""

    extents: list[Extent]
    """In order of the text."""
    is_lease: ClassVar[bool]


class Chain:
    """The blocks of one text that are still in the cache."""

    __slots__ = ("extents", "name", "shared_blocks", "shared_name")

    def __init__(self, name: str, shared_name: str | None = None, shared_blocks: int = 0) -> None:
        self.name = name
        self.shared_name = shared_name
        self.shared_blocks = shared_blocks
        """The text begins with that many blocks of that other chain."""
        self.extents: list[Extent] = []
        """In the order in which they were computed. Two may cover the same blocks, when a text was
        computed twice: the earlier one is found, as in vLLM, and the later one after it is gone."""

    def cover(self, start: int, limit: int, parts: list[tuple[Extent, int, int]]) -> int:
        """Append ``(extent, from, to)`` for the blocks from ``start`` on; the first that is not cached."""
        while start < limit:
            end = limit
            for extent in self.extents:
                if extent.lo <= start < extent.hi:
                    break
                if start < extent.lo < end:
                    end = extent.lo  # from there on this earlier one is found
            else:
                break
            end = min(end, extent.hi)
            parts.append((extent, start, end))
            start = end
        return start


class Extent:
    """The blocks ``lo`` to ``hi - 1`` of a chain."""

    __slots__ = ("after", "before", "chain", "hi", "holders", "lo", "users")

    def __init__(self, chain: Chain, lo: int, hi: int) -> None:
        self.chain = chain
        self.lo = lo
        self.hi = hi
        self.holders: list[Holder] = []
        self.users = 0
        """How many of the holders are requests; the others are leases."""
        self.before: Extent | None = None
        self.after: Extent | None = None

    def __repr__(self) -> str:
        return f"<Extent {self.chain.name} {self.lo}-{self.hi}, {len(self.holders)} holders>"

    @property
    def blocks(self) -> int:
        return self.hi - self.lo

    @property
    def is_pinned(self) -> bool:
        """Whether a lease holds it, perhaps beside requests."""
        return len(self.holders) > self.users

    def split(self, at: int) -> Extent:
        """Keep the blocks below ``at``; the others, in a new extent that is reused before this one."""
        upper = Extent(self.chain, at, self.hi)
        self.hi = at
        siblings = self.chain.extents
        siblings.insert(siblings.index(self) + 1, upper)
        upper.holders, upper.users = self.holders.copy(), self.users
        for holder in self.holders:
            holder.extents.insert(holder.extents.index(self) + 1, upper)
        return upper


class FreeQueue:
    """Idle extents, the first to be reused first: a linked list, so that all of it takes constant time."""

    __slots__ = ("_end",)

    def __init__(self) -> None:
        end = Extent(Chain(""), 0, 0)
        end.before = end.after = end
        self._end = end

    def __iter__(self) -> Iterator[Extent]:
        each = self._end.after
        while each is not self._end:
            assert each is not None
            yield each
            each = each.after

    @property
    def first(self) -> Extent:
        assert self._end.after is not None
        return self._end.after

    def append(self, extent: Extent) -> None:
        self.insert(extent, self._end)

    def insert(self, extent: Extent, after: Extent) -> None:
        """Put ``extent`` right before ``after``: it is reused earlier."""
        before = after.before
        assert before is not None
        extent.before, extent.after = before, after
        before.after = after.before = extent

    def remove(self, extent: Extent) -> None:
        before, after = extent.before, extent.after
        assert before is not None
        assert after is not None
        before.after, after.before = after, before
        extent.before = extent.after = None

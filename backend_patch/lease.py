"""A lease: blocks of the prefix cache held for a session until its next turn, and who may have them first.

Owns the vocabulary. ``lease_table`` keeps the leases, ``reclaim_plan`` says what to take.
"""

from collections.abc import Hashable, Iterable, Sequence
from dataclasses import dataclass
from enum import IntEnum
from typing import Any, Protocol

from backend_patch.ending_log import SessionKey
from backend_patch.protocol import LeaseMode


class Block(Protocol):
    """Of vLLM's ``KVCacheBlock``."""

    @property
    def block_id(self) -> int: ...

    @property
    def ref_cnt(self) -> int: ...


class BlockPool(Protocol):
    """Of vLLM's ``BlockPool``."""

    def touch(self, blocks: Any) -> None:
        """One more reference to each; a free one leaves the queue of those that are reused."""

    def free_blocks(self, ordered_blocks: Iterable[Any]) -> None:
        """One reference less; those without any are reused in this order, after all others."""


class Rank(IntEnum):
    """Lower gives way earlier. Within a rank, who has been away for longest: the gaps of tools are
    heavy-tailed, so it is the least likely to be back soon."""

    OPEN = 0
    SOFT = 1
    SOFT_CLAIMED = 2
    HARD = 3


TO_NEW = (Rank.OPEN,)
TO_CONTINUATION = (Rank.OPEN, Rank.SOFT, Rank.SOFT_CLAIMED)
TO_ALL = tuple(Rank)


@dataclass(slots=True, eq=False)
class Lease:
    key: SessionKey
    mode: LeaseMode
    blocks: list[Block]
    """The prefix of a sequence, first block first. Never empty while the lease lasts."""
    hashes: Sequence[Hashable]
    """Of the sequence; what the next turn's prompt is compared with."""
    number: int
    """Counts leases in the order in which they began."""
    expires_at_s: float
    claims: int = 0
    """Turns of the session that wait."""

    @property
    def rank(self) -> Rank:
        if self.mode is LeaseMode.OPEN:
            return Rank.OPEN
        if self.mode is LeaseMode.HARD:
            return Rank.HARD
        return Rank.SOFT_CLAIMED if self.claims else Rank.SOFT

"""Which blocks leases hold, and how many leases hold each.

Owns the counting. Leases come and go with thousands of blocks, nearly all of them in one lease only: those
are kept in a set, which takes whole leases at once, and only the others have a number.
"""

from collections.abc import Collection


class HeldBlocks:
    def __init__(self) -> None:
        self._held: set[int] = set()
        self._several: dict[int, int] = {}
        """Of those in more than one lease, in how many."""

    def __len__(self) -> int:
        """Different blocks."""
        return len(self._held)

    def __contains__(self, block_id: int) -> bool:
        return block_id in self._held

    def holders(self, block_id: int) -> int:
        """Leases that hold a block which is held."""
        return self._several.get(block_id, 1)

    def add(self, block_ids: Collection[int]) -> None:
        """One lease more has these."""
        several = self._several
        for block_id in self._held.intersection(block_ids):
            several[block_id] = several.get(block_id, 1) + 1
        self._held.update(block_ids)

    def remove(self, block_ids: Collection[int]) -> None:
        """One lease less has these."""
        several = self._several
        kept = several.keys() & block_ids if several else ()
        self._held.difference_update(block_ids)
        for block_id in kept:
            self._held.add(block_id)
            if several[block_id] == 2:
                del several[block_id]
            else:
                several[block_id] -= 1

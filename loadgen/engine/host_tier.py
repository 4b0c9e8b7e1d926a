"""KV in the host's memory: which chains were swapped out, and how much of each.

Owns only the accounting; what a copy costs is the clock's business. Full means that the chain swapped out
longest ago is dropped; one that is larger than the whole tier keeps its beginning.
"""


class HostTier:
    def __init__(self, capacity_blocks: int) -> None:
        self.capacity_blocks = capacity_blocks
        self.used_blocks = 0
        self._ranges: dict[str, tuple[int, int]] = {}

    def store(self, chain: str, lo: int, hi: int) -> None:
        """Keep the chain's blocks ``lo`` to ``hi - 1``, in place of what was there of it."""
        self.drop(chain)
        hi = min(hi, lo + self.capacity_blocks)
        while self.used_blocks + hi - lo > self.capacity_blocks:
            self.drop(next(iter(self._ranges)))
        if hi > lo:
            self._ranges[chain] = (lo, hi)
            self.used_blocks += hi - lo

    def blocks_from(self, chain: str, start: int, limit: int) -> int:
        """How many blocks of the chain from ``start`` on are here without a gap."""
        lo, hi = self._ranges.get(chain, (0, 0))
        return max(0, min(hi, limit) - start) if lo <= start else 0

    def drop(self, chain: str) -> None:
        lo, hi = self._ranges.pop(chain, (0, 0))
        self.used_blocks -= hi - lo

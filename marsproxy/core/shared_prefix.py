"""How much of a prompt all sessions of a family have in common: system prompt and tools.

The blocks of such a prefix exist once on a backend however many sessions use them. How long it is shows
when a first turn finds blocks in the cache: nothing but what others of its family left can be there.
"""

from collections import OrderedDict, deque

WINDOW = 8
"""First turns that are looked back on. The smallest hit of them is taken: two runs of the same task share
more than their family does."""
MAX_FAMILIES = 1_000
"""Families whose prefix is remembered; the one that was quiet for longest goes first."""


class SharedPrefixes:
    """Tokens that a family shares, and what of it is charged where."""

    def __init__(self) -> None:
        self._hits: OrderedDict[str, deque[int]] = OrderedDict()
        self._fixed: dict[tuple[str, str], int] = {}
        """Charged for a family on a backend: what was known when its first session was counted there."""

    def learn(self, family: str, cached_tokens: int) -> bool:
        """A session's first turn found so much in the cache. Nothing found says only that it was gone.
        Whether what the family is taken to share has changed."""
        if cached_tokens <= 0:
            return False
        before = self.tokens(family)
        self._hits.setdefault(family, deque(maxlen=WINDOW)).append(cached_tokens)
        self._hits.move_to_end(family)
        if len(self._hits) > MAX_FAMILIES:
            self._hits.popitem(last=False)
        return self.tokens(family) != before

    def tokens(self, family: str) -> int:
        hits = self._hits.get(family)
        return min(hits) if hits else 0

    def fix(self, family: str, backend: str) -> int:
        """Charge the prefix on a backend; the same amount is given back by ``unfix``."""
        tokens = self._fixed[family, backend] = self.tokens(family)
        return tokens

    def of(self, family: str, backend: str) -> int:
        """What is charged there for all of the family, or would be."""
        fixed = self._fixed.get((family, backend))
        return self.tokens(family) if fixed is None else fixed

    def unfix(self, family: str, backend: str) -> int:
        return self._fixed.pop((family, backend))

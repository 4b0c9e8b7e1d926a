"""How many hold each of many things: blocks of leases, hashes of sequences.

Owns the counting. Holders come and go with thousands of things, nearly all of which they alone hold: those
are kept in a set, which takes all of them at once, and only the others have a number.
"""

from collections.abc import Collection, Hashable
from typing import Generic, TypeVar

K = TypeVar("K", bound=Hashable)


class Holders(Generic[K]):
    def __init__(self) -> None:
        self._held: set[K] = set()
        self._several: dict[K, int] = {}
        """Of what more than one holds, how many do."""

    def __len__(self) -> int:
        """Different things that are held."""
        return len(self._held)

    def __contains__(self, thing: K) -> bool:
        return thing in self._held

    def of(self, thing: K) -> int:
        """How many hold it; it must be held."""
        return self._several.get(thing, 1)

    def add(self, things: Collection[K]) -> None:
        """One more holds these, each once."""
        several = self._several
        for thing in self._held.intersection(things):
            several[thing] = several.get(thing, 1) + 1
        self._held.update(things)

    def remove(self, things: Collection[K]) -> None:
        """One less holds these, each once."""
        several = self._several
        others = several.keys() & things if several else ()
        self._held.difference_update(things)
        for thing in others:
            self._held.add(thing)
            if several[thing] == 2:
                del several[thing]
            else:
                several[thing] -= 1

"""Bounded memories: the latest figures of one kind, and one of anything for each of the latest names.

They know nothing of what the figures mean.
"""

from bisect import bisect_left, insort
from collections import OrderedDict, deque
from collections.abc import Callable
from typing import Generic, TypeVar

T = TypeVar("T")


class MeanWindow:
    """Mean of the latest values."""

    def __init__(self, size: int) -> None:
        self._size = size
        self._latest: deque[float] = deque()
        self._total = 0.0

    def __len__(self) -> int:
        return len(self._latest)

    def add(self, value: float) -> None:
        if len(self._latest) == self._size:
            self._total -= self._latest.popleft()
        self._latest.append(value)
        self._total += value

    @property
    def mean(self) -> float | None:
        return self._total / len(self._latest) if self._latest else None


class SortedWindow:
    """The latest values in order of size. Adding one costs a binary search and a shift."""

    def __init__(self, size: int) -> None:
        self._size = size
        self._latest: deque[float] = deque()
        self.ascending: list[float] = []

    def __len__(self) -> int:
        return len(self._latest)

    def add(self, value: float) -> None:
        if len(self._latest) == self._size:
            del self.ascending[bisect_left(self.ascending, self._latest.popleft())]
        self._latest.append(value)
        insort(self.ascending, value)


class LatestNames(Generic[T]):
    """One ``T`` for each name; beyond ``size`` the one unused for longest is dropped."""

    def __init__(self, size: int, make: Callable[[], T]) -> None:
        self._size = size
        self._make = make
        self._by_name: OrderedDict[str, T] = OrderedDict()

    def __len__(self) -> int:
        return len(self._by_name)

    def get(self, name: str) -> T | None:
        return self._by_name.get(name)

    def use(self, name: str) -> T:
        """What belongs to the name, made if need be; it is now the last to be dropped."""
        if name not in self._by_name:
            self._by_name[name] = self._make()
        self._by_name.move_to_end(name)
        if len(self._by_name) > self._size:
            self._by_name.popitem(last=False)
        return self._by_name[name]

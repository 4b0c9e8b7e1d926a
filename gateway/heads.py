"""The beginnings of outputs, which most callers want once and soon after the end.

Owns a number of bytes. What is not here any more is on its host.
"""

from collections import OrderedDict
from collections.abc import Mapping

from gateway.protocol import StreamName

Head = Mapping[StreamName, bytes]


class Heads:
    def __init__(self, max_bytes: int) -> None:
        self._max_bytes = max_bytes
        self._bytes = 0
        self._heads: OrderedDict[str, Head] = OrderedDict()
        """Oldest first."""

    @property
    def bytes(self) -> int:
        return self._bytes

    def put(self, exec_id: str, head: Head) -> None:
        self.drop(exec_id)
        self._heads[exec_id] = head
        self._bytes += _size(head)
        while self._bytes > self._max_bytes:
            self.drop(next(iter(self._heads)))

    def find(self, exec_id: str) -> Head | None:
        return self._heads.get(exec_id)

    def drop(self, exec_id: str) -> None:
        if (head := self._heads.pop(exec_id, None)) is not None:
            self._bytes -= _size(head)


def _size(head: Head) -> int:
    return sum(map(len, head.values()))

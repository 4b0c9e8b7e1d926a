"""Whose engine step ends next. With many servers, asking each of them at every instant would be most of a
simulation; so only those to which something happened are asked."""

from collections.abc import Iterable
from heapq import heappop, heappush

from loadgen.sim.backend import Backend


class StepEnds:
    def __init__(self, servers: Iterable[Backend]) -> None:
        self._servers = list(servers)
        self._index = {server: index for index, server in enumerate(self._servers)}
        self._heap: list[tuple[float, int]] = []
        """Ends and servers; an entry is void once the server's step ends at another time."""
        self._touched: dict[Backend, None] = {}

    def touch(self, server: Backend) -> None:
        """It was given something, or its step is over: it may begin a step, or end its step sooner."""
        self._touched[server] = None

    def start(self, now: float) -> None:
        """Let those that were touched begin a step if they are in none."""
        for server in self._touched:
            server.start(now)
            if server.step_ends_s is not None:
                heappush(self._heap, (server.step_ends_s, self._index[server]))
        self._touched.clear()

    @property
    def next_s(self) -> float | None:
        heap = self._heap
        while heap and self._servers[heap[0][1]].step_ends_s != heap[0][0]:
            heappop(heap)
        return heap[0][0] if heap else None

    def due(self, now: float) -> list[Backend]:
        """Those whose step has ended by ``now``, in the order of the servers. They must be touched."""
        due: set[int] = set()
        while (ends_s := self.next_s) is not None and ends_s <= now:
            due.add(heappop(self._heap)[1])
        return [self._servers[index] for index in sorted(due)]

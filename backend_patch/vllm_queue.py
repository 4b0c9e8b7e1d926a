"""The waiting queue of the patched scheduler: sorted by a key that is asked for, not by arrival.

Owns the order while requests wait. A key is computed when a request enters and again when it may have
changed: when it has waited long enough to be aged, or when it is told that a request's session changed. So
a step in which nothing happens costs one comparison however many wait. Keys never change between two steps'
beginnings: vLLM peeks at a request, allocates for it, and then pops it.
"""

from bisect import bisect_left, insort
from collections.abc import Callable, Container, Iterable, Iterator

from vllm.v1.core.sched.request_queue import RequestQueue
from vllm.v1.request import Request

from backend_patch.order import WaitingKey

Entry = tuple[WaitingKey, int, Request]
Queued = tuple[float, int, Request]


class AgentQueue(RequestQueue):  # type: ignore[misc]
    def __init__(self, key: Callable[[Request], WaitingKey], queued_at_s: Callable[[Request], float]) -> None:
        """``queued_at_s`` of a request may not change while it waits."""
        self._key = key
        self._queued_at_s = queued_at_s
        self._entries: list[Entry] = []
        self._young: list[Queued] = []
        """Those not aged yet, who came first first."""
        self._of: dict[Request, tuple[Entry, Queued]] = {}
        self._aged_before_s = float("-inf")
        self._count = 0

    def refresh(self, aged_before_s: float, changed: Container[Request] | None = None) -> None:
        """Sort those anew that were queued before that time and had not been yet, and those that changed."""
        self._aged_before_s = aged_before_s
        aged = [each[2] for each in self._young[: bisect_left(self._young, aged_before_s, key=_time)]]
        for request in aged:
            self._rekey(request)
        if changed is not None:
            for request in [each for each in self._of if each in changed]:
                self._rekey(request)

    def add_request(self, request: Request) -> None:
        self._count += 1
        entry = (self._key(request), self._count, request)
        queued = (self._queued_at_s(request), self._count, request)
        insort(self._entries, entry)
        if queued[0] >= self._aged_before_s:
            insort(self._young, queued)
        self._of[request] = (entry, queued)

    def pop_request(self) -> Request:
        request = self.peek_request()
        self.remove_request(request)
        return request

    def peek_request(self) -> Request:
        if not self._entries:
            raise IndexError("nobody waits")
        return self._entries[0][2]

    def prepend_request(self, request: Request) -> None:
        """There is no front but the order's."""
        self.add_request(request)

    def prepend_requests(self, requests: Iterable[Request]) -> None:
        for request in requests:
            self.add_request(request)

    def remove_request(self, request: Request) -> None:
        entry, queued = self._of.pop(request)
        del self._entries[bisect_left(self._entries, entry)]
        place = bisect_left(self._young, queued)
        if place < len(self._young) and self._young[place][2] is request:
            del self._young[place]

    def remove_requests(self, requests: Iterable[Request]) -> None:
        for request in requests:
            if request in self._of:
                self.remove_request(request)

    def __bool__(self) -> bool:
        return bool(self._entries)

    def __len__(self) -> int:
        return len(self._entries)

    def __iter__(self) -> Iterator[Request]:
        return iter([request for _key, _count, request in self._entries])

    def _rekey(self, request: Request) -> None:
        self.remove_request(request)
        self.add_request(request)


def _time(queued: Queued) -> float:
    return queued[0]

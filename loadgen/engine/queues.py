"""The order in which requests wait and the choice of who is preempted, for each policy of vLLM V1.

fcfs: first come, first served; a preempted request goes back to the front; the victim is the request
that started running last. priority: by (priority, arrival), lower first, a preempted request included;
the victim is the worst of those that run.
"""

from bisect import bisect_left, insort
from collections import deque
from collections.abc import Iterator
from typing import Literal, Protocol

from loadgen.engine.requests import EngineRequest

PolicyName = Literal["fcfs", "priority"]


class WaitingQueue(Protocol):
    def __len__(self) -> int: ...
    def __iter__(self) -> Iterator[EngineRequest]: ...
    def add(self, request: EngineRequest) -> None: ...
    def add_preempted(self, request: EngineRequest) -> None: ...
    def head(self) -> EngineRequest: ...
    def pop(self) -> EngineRequest: ...
    def remove(self, request: EngineRequest) -> None: ...
    def reprioritise(self, request: EngineRequest, priority: int) -> None: ...
    def victim(self, running: list[EngineRequest]) -> EngineRequest: ...


class FcfsQueue:
    def __init__(self) -> None:
        self._requests: deque[EngineRequest] = deque()

    def __len__(self) -> int:
        return len(self._requests)

    def __iter__(self) -> Iterator[EngineRequest]:
        return iter(self._requests)

    def add(self, request: EngineRequest) -> None:
        self._requests.append(request)

    def add_preempted(self, request: EngineRequest) -> None:
        self._requests.appendleft(request)

    def head(self) -> EngineRequest:
        return self._requests[0]

    def pop(self) -> EngineRequest:
        return self._requests.popleft()

    def remove(self, request: EngineRequest) -> None:
        self._requests.remove(request)

    def reprioritise(self, request: EngineRequest, priority: int) -> None:
        request.priority = priority  # and nobody looks at it

    def victim(self, running: list[EngineRequest]) -> EngineRequest:
        return running[-1]


class PriorityQueue:
    def __init__(self) -> None:
        self._requests: list[EngineRequest] = []

    def __len__(self) -> int:
        return len(self._requests)

    def __iter__(self) -> Iterator[EngineRequest]:
        return iter(self._requests)

    def add(self, request: EngineRequest) -> None:
        insort(self._requests, request, key=urgency)

    def add_preempted(self, request: EngineRequest) -> None:
        self.add(request)

    def head(self) -> EngineRequest:
        return self._requests[0]

    def pop(self) -> EngineRequest:
        return self._requests.pop(0)

    def remove(self, request: EngineRequest) -> None:
        index = bisect_left(self._requests, urgency(request), key=urgency)
        assert self._requests[index] is request
        del self._requests[index]

    def reprioritise(self, request: EngineRequest, priority: int) -> None:
        self.remove(request)
        request.priority = priority
        self.add(request)

    def victim(self, running: list[EngineRequest]) -> EngineRequest:
        return max(running, key=urgency)


def urgency(request: EngineRequest) -> tuple[int, float, int]:
    """Sort key of the priority policy: the smallest runs first, the largest is preempted first."""
    return request.priority, request.arrival_s, request.queued_number


def waiting_queue(policy: PolicyName) -> WaitingQueue:
    match policy:
        case "fcfs":
            return FcfsQueue()
        case "priority":
            return PriorityQueue()
    raise ValueError(f"scheduling policy must be fcfs or priority, not {policy!r}")

"""What the backend patch changes in vLLM's scheduler: who waits behind whom, and who may break leases.

Theory of operation. Before each step the queue is sorted anew: those that were preempted or have waited for
``aging_s`` first, in order of arrival; then by priority, by class (continuations whose blocks are leased,
other continuations, new sessions), by the session's first arrival, and by arrival. Those that run are
sorted, too: decodes, in the order they came, then prefills, by priority, continuations first, short rests
first; where vLLM has no blocks left it preempts the last of them. Only while a continuation waits is a
prefill's chunk cut to half of a step's budget.

Owns the orders and the numbers. What it must equal is ``backend_patch``, which does the same inside a real
engine; the numbers are the defaults of its settings.
"""

from collections import OrderedDict
from collections.abc import Callable, Iterator
from dataclasses import dataclass

from loadgen.engine.queues import PolicyName, urgency
from loadgen.engine.requests import EngineRequest

MAX_SESSIONS = 4_096
"""Sessions whose first arrival is remembered; the one unseen for longest goes first."""

IsLeased = Callable[[str], bool]
"""Whether something is kept for the chain of that name."""


@dataclass(frozen=True, slots=True)
class PatchRules:
    aging_s: float = 30.0
    """Who has waited for so long goes first and may break leases that yield to returning turns."""
    max_leased_share: float = 0.9
    """Of the pool; what a lease would take beyond it is not kept."""
    max_ttl_s: float = 300.0
    """Longest lease."""


class PatchedQueue:
    """A ``WaitingQueue`` whose order is that of the latest ``resort``; later arrivals stand at its end."""

    def __init__(self, policy: PolicyName, aging_s: float, is_leased: IsLeased) -> None:
        self._policy = policy
        self._aging_s = aging_s
        self._is_leased = is_leased
        self._requests: list[EngineRequest] = []
        self._first_arrivals_s: OrderedDict[str, float] = OrderedDict()

    def __len__(self) -> int:
        return len(self._requests)

    def __iter__(self) -> Iterator[EngineRequest]:
        return iter(self._requests)

    def add(self, request: EngineRequest) -> None:
        if request.chain is not None:
            self._first_arrivals_s.setdefault(request.chain, request.arrival_s)
            self._first_arrivals_s.move_to_end(request.chain)
            if len(self._first_arrivals_s) > MAX_SESSIONS:
                self._first_arrivals_s.popitem(last=False)
        self._requests.append(request)

    def add_preempted(self, request: EngineRequest) -> None:
        self._requests.insert(0, request)

    def head(self) -> EngineRequest:
        return self._requests[0]

    def pop(self) -> EngineRequest:
        return self._requests.pop(0)

    def remove(self, request: EngineRequest) -> None:
        self._requests.remove(request)

    def reprioritise(self, request: EngineRequest, priority: int) -> None:
        request.priority = priority

    def victim(self, running: list[EngineRequest]) -> EngineRequest:
        return running[-1] if self._policy == "fcfs" else max(running, key=urgency)

    def resort(self, now: float) -> None:
        self._requests.sort(key=lambda request: self._key(request, now))

    def has_aged(self, request: EngineRequest, now: float) -> bool:
        return now >= request.arrival_s + self._aging_s

    def next_aged_s(self, now: float) -> float | None:
        """When the next of those that wait will have waited for too long."""
        ages = (request.arrival_s + self._aging_s for request in self._requests)
        return min((age_s for age_s in ages if age_s > now), default=None)

    @property
    def has_continuation(self) -> bool:
        """One that has not run yet."""
        return any(each.may_break_leases and each.scheduled_s is None for each in self._requests)

    def _key(self, request: EngineRequest, now: float) -> tuple[int, int, int, float, float, int]:
        if request.preemptions or self.has_aged(request, now):
            return (0, 0, 0, 0.0, request.arrival_s, request.queued_number)
        chain = request.chain or ""
        session_s = self._first_arrivals_s.get(chain, request.arrival_s)
        number = request.queued_number
        return (1, request.priority, self._class(request, chain), session_s, request.arrival_s, number)

    def _class(self, request: EngineRequest, chain: str) -> int:
        if not request.may_break_leases:
            return 2
        return 0 if self._is_leased(chain) else 1


def running_key(request: EngineRequest) -> tuple[int, int, int, int]:
    """Sort key of those that run; decodes are all alike and stay in their order."""
    remaining_tokens = request.known_tokens - request.computed_tokens
    if remaining_tokens <= 1:
        return (0, 0, 0, 0)
    return (1, request.priority, 0 if request.may_break_leases else 1, remaining_tokens)

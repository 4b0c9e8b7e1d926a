"""The waiting queue against a sort of all that wait, whatever happens to it."""

import random
from types import SimpleNamespace
from typing import Any

import pytest

from tests.bench.instructions import instructions_of

pytestmark = [pytest.mark.vllm, pytest.mark.filterwarnings("default")]

AGING_S = 10.0


class Waiting:
    """A queue whose order is: who is aged first, by arrival; then by class, which may change."""

    def __init__(self) -> None:
        from backend_patch.vllm_queue import AgentQueue

        self.now_s = 0.0
        self.queue = AgentQueue(self.key, lambda request: float(request.queued_at_s))
        self.waiting: list[Any] = []
        self.count = 0

    def key(self, request: Any) -> Any:
        is_aged = request.queued_at_s < self.now_s - AGING_S
        return (0 if is_aged else 1, 0, 0 if is_aged else request.wait_class, 0.0, 0.0, request.number)

    def new(self, wait_class: int) -> Any:
        self.count += 1
        request = SimpleNamespace(number=self.count, wait_class=wait_class, queued_at_s=self.now_s)
        return Hashed(request)

    def add(self, wait_class: int) -> Any:
        request = self.new(wait_class)
        self.queue.add_request(request)
        self.waiting.append(request)
        return request

    def check(self) -> None:
        self.queue.refresh(self.now_s - AGING_S)
        assert list(self.queue) == sorted(self.waiting, key=self.key)
        assert len(self.queue) == len(self.waiting)
        assert bool(self.queue) == bool(self.waiting)


class Hashed:
    """A request is known by its identity."""

    def __init__(self, said: Any) -> None:
        self.__dict__.update(vars(said))


@pytest.mark.parametrize("seed", range(5))
def test_always_sorted(seed: int) -> None:
    """Arrivals, skips, pops, aborts, changes of class, and time."""
    rng, waiting = random.Random(seed), Waiting()
    for _ in range(400):
        waiting.now_s += rng.random()
        action = rng.choice(["add", "add", "pop", "skip", "remove", "change"])
        some = rng.sample(waiting.waiting, min(len(waiting.waiting), 2))
        if action == "add":
            waiting.add(rng.randrange(3))
        elif action == "pop" and waiting.waiting:
            first = waiting.queue.peek_request()
            assert waiting.queue.pop_request() is first
            waiting.waiting.remove(first)
        elif action == "skip" and waiting.waiting:
            waiting.queue.prepend_requests([waiting.queue.pop_request()])
        elif action == "remove":
            waiting.queue.remove_requests([*some, waiting.new(0)])
            waiting.waiting = [each for each in waiting.waiting if each not in some]
        elif action == "change":
            for request in some:
                request.wait_class = rng.randrange(3)
            waiting.queue.refresh(waiting.now_s - AGING_S, set(some))
        waiting.check()


def test_nobody_waits() -> None:
    """As vLLM's queues say it."""
    queue = Waiting().queue
    for action in (queue.peek_request, queue.pop_request):
        with pytest.raises(IndexError):
            action()


def test_order_stands_still_between_refreshes() -> None:
    """vLLM peeks, allocates, and pops; in between a lease may end."""
    waiting = Waiting()
    first, second = waiting.add(0), waiting.add(1)
    assert waiting.queue.peek_request() is first
    first.wait_class, waiting.now_s = 2, 50.0
    assert waiting.queue.pop_request() is first
    assert waiting.queue.pop_request() is second


def test_a_quiet_step_costs_the_same_however_many_wait() -> None:
    """A thousand of them, none aged, or all aged long ago."""

    def cost(count: int, now_s: float) -> int:
        waiting = Waiting()
        for _ in range(count):
            waiting.add(1)
        waiting.queue.refresh(now_s - AGING_S)
        return instructions_of(lambda: waiting.queue.refresh(now_s - AGING_S))

    assert cost(1000, 1.0) <= cost(10, 1.0) + 100
    assert cost(1000, 50.0) == cost(10, 50.0)

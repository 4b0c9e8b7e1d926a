"""The orders of the patched engine: who waits behind whom, who is preempted, whose chunks are cut."""

from dataclasses import replace

import pytest

from loadgen.engine.chains import ChainStore
from loadgen.engine.leases import How
from loadgen.engine.patch import MAX_SESSIONS, PatchedQueue, PatchRules, running_key
from loadgen.engine.requests import EngineRequest
from loadgen.engine.scheduler import Scheduler, SchedulerLimits
from marsproxy.core.commands import KvLease, YieldsTo

BLOCK = 4
AGING_S = 30.0
LEASE = KvLease(1_000.0, YieldsTo.RETURNING)


def request(name: str, arrival_s: float = 0.0, *, new: bool = False, priority: int = 0) -> EngineRequest:
    made = EngineRequest(name, 8, 1, chain=name, arrival_s=arrival_s, priority=priority)
    made.may_break_leases = not new
    return made


def in_order(*requests: EngineRequest, leased: str = "", now: float = 10.0) -> list[str]:
    queue = PatchedQueue("fcfs", AGING_S, lambda chain: chain in leased)
    for number, each in enumerate(requests):
        each.queued_number = number
        queue.add(each)
    queue.resort(now)
    return [each.request_id for each in queue]


def test_leased_continuations_come_before_others_and_those_before_new_sessions() -> None:
    waiting = request("n", 1.0, new=True), request("c", 2.0), request("w", 3.0)
    assert in_order(*waiting, leased="w") == ["w", "c", "n"]


def test_priority_comes_before_the_class() -> None:
    assert in_order(request("late", priority=1), request("n", 5.0, new=True)) == ["n", "late"]


def test_within_a_class_the_session_that_came_first_goes_first() -> None:
    old, young, again = request("old"), request("young", 1.0), request("old", 2.0)
    again.request_id = "again"
    queue = PatchedQueue("fcfs", AGING_S, lambda _chain: False)
    for each in (old, young, again):
        queue.add(each)
    queue.remove(old)
    queue.resort(3.0)
    assert queue.pop().request_id == "again"
    assert queue.head().request_id == "young"


def test_who_has_waited_for_too_long_or_was_preempted_goes_first_in_order_of_arrival() -> None:
    aged, preempted = request("aged", 5.0, new=True, priority=9), request("preempted", 20.0, new=True)
    preempted.preemptions = 1
    assert in_order(request("w", 6.0), preempted, aged, leased="w", now=35.5) == ["aged", "preempted", "w"]


def test_it_is_known_when_somebody_will_have_waited_for_too_long() -> None:
    queue = PatchedQueue("fcfs", AGING_S, lambda _chain: False)
    assert queue.next_aged_s(0.0) is None
    queue.add(request("a", 1.0))
    queue.add(request("b", 4.0))
    assert [queue.next_aged_s(now) for now in (0.0, 31.0, 34.0)] == [31.0, 34.0, None]


@pytest.mark.parametrize(("policy", "victim"), [("fcfs", "last"), ("priority", "worst")])
def test_the_victim_is_the_one_of_the_engines_own_policy(policy: str, victim: str) -> None:
    queue = PatchedQueue(policy, AGING_S, lambda _chain: False)  # type: ignore[arg-type]
    running = [request("worst", priority=3), request("last")]
    assert queue.victim(running).request_id == victim


def test_sessions_are_remembered_up_to_a_bound() -> None:
    queue = PatchedQueue("fcfs", AGING_S, lambda _chain: False)
    for number in range(MAX_SESSIONS + 10):
        queue.add(request(f"s{number}"))
    assert len(queue._first_arrivals_s) == MAX_SESSIONS


def test_decodes_come_before_prefills_continuations_before_new_and_short_rests_first() -> None:
    def running(name: str, left: int, *, new: bool = False) -> EngineRequest:
        made = replace(request(name, new=new), prompt_tokens=100)
        made.computed_tokens = 100 - left
        return made

    those = [running("new", 5, new=True), running("long", 50), running("d1", 1), running("short", 9)]
    those += [running("d2", 1, new=True)]
    names = [each.request_id for each in sorted(those, key=running_key)]
    assert names == ["d1", "d2", "short", "long", "new"]


# -- in the scheduler ----------------------------------------------------------------------------


class Engine:
    def __init__(self, blocks: int = 20, batched: int = 16, rules: PatchRules | None = None) -> None:
        limits = SchedulerLimits(blocks, BLOCK, batched, patch=rules or PatchRules())
        self.store = ChainStore(blocks, BLOCK, max_leased_share=0.9)
        self.scheduler = Scheduler(limits, self.store)

    def add(
        self, chain: str, prompt: int, output: int = 1, *, new: bool = False, at_s: float = 0.0
    ) -> EngineRequest:
        made = EngineRequest(chain, prompt, output, chain=chain, arrival_s=at_s, lease=LEASE)
        made.may_break_leases = not new
        self.scheduler.add(made)
        return made

    def step(self, now: float = 0.0) -> dict[str, int]:
        batch = self.scheduler.schedule(now)
        self.scheduler.complete(batch, now)
        return {each.request_id: tokens for each, tokens in batch.scheduled.items()}

    def leased(self, chain: str, blocks: int) -> None:
        made = self.add(chain, blocks * BLOCK)
        while not made.is_over:
            self.step()


def test_a_long_prefill_shares_its_steps_only_while_a_continuation_waits() -> None:
    engine = Engine()
    engine.add("long", 60, new=True)
    assert engine.step() == {"long": 16}
    engine.add("c", 6)
    assert engine.step() == {"long": 8, "c": 6}
    assert engine.step() == {"long": 16}


def test_a_continuation_alone_gets_whole_steps() -> None:
    engine = Engine()
    engine.add("c", 30)
    assert engine.step() == {"c": 16}


def test_a_new_session_does_not_make_anybody_share() -> None:
    engine = Engine()
    engine.add("long", 60)
    engine.step()
    engine.add("n", 6, new=True)
    assert engine.step() == {"long": 16}


def test_a_new_session_breaks_leases_when_it_has_waited_for_too_long_and_not_before() -> None:
    engine = Engine(blocks=20)
    engine.leased("kept", 12)
    engine.add("runs", 8, 20, at_s=0.0)
    engine.step()
    engine.add("n", 30, new=True, at_s=1.0)
    assert "n" not in engine.step(30.5)
    assert engine.scheduler.next_change_s(30.5) == 31.0
    assert "n" in engine.step(31.0)


def test_running_requests_break_even_leases_that_yield_to_nobody() -> None:
    engine = Engine(blocks=11)
    engine.leased("kept", 2)
    engine.store.keep("kept", None, YieldsTo.NOBODY, 0.0)
    a, b = engine.add("a", 16, 8), engine.add("b", 14, 6)
    for _ in range(7):
        engine.step()
    assert (a.preemptions, b.preemptions) == (0, 0)
    assert ("kept", How.RECLAIMED) in {(each.chain, each.how) for each in engine.store.take_endings()}


def test_those_that_wait_do_not() -> None:
    engine = Engine(blocks=10)
    engine.leased("kept", 5)
    engine.store.keep("kept", None, YieldsTo.NOBODY, 0.0)
    engine.add("runs", 8, 4)
    engine.step()
    engine.add("c", 15)
    assert "c" not in engine.step()

"""The same scheduler in virtual time: merged decode steps, and the collapse past the pool size."""

import random
from collections.abc import Callable, Iterable
from dataclasses import dataclass
from functools import partial
from itertools import pairwise

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from backend_patch.step_time import HardwareProfile, ModelProfile, StepTime
from loadgen.engine.chains import ChainStore
from loadgen.engine.patch import PatchRules
from loadgen.engine.requests import EngineRequest
from loadgen.engine.scheduler import Scheduler, SchedulerLimits
from loadgen.engine.virtual import VirtualEngine
from marsproxy.core.commands import KvLease, YieldsTo

pytestmark = pytest.mark.slow

BLOCK = 16


def roofline() -> StepTime:
    return StepTime(HardwareProfile.load("h100"), ModelProfile.load("qwen3-30b-a3b"))


def engine(kv_tokens: int, *, merge_decodes: bool = True, policy: str = "fcfs") -> VirtualEngine:
    limits = SchedulerLimits(kv_blocks=kv_tokens // BLOCK, policy=policy)  # type: ignore[arg-type]
    return VirtualEngine(Scheduler(limits), roofline().seconds, merge_decodes=merge_decodes)


class Agent:
    """A session of turns with one growing context, each turn a tool gap after the one before."""

    def __init__(
        self, name: str, first_prompt: int, added: int, output: int, turns: int, gap_s: float
    ) -> None:
        self.hashes = [
            hash((name, index)) for index in range((first_prompt + turns * (added + output)) // BLOCK)
        ]
        self.requests = [
            EngineRequest(f"{name}/{turn}", first_prompt + turn * (added + output), output, self.hashes)
            for turn in range(turns)
        ]
        self.gap_s = gap_s


def run_agents(driver: VirtualEngine, agents: Iterable[tuple[float, Agent]]) -> float:
    following: dict[EngineRequest, tuple[EngineRequest, float]] = {}
    first = []
    for at_s, agent in agents:
        first.append((at_s, agent.requests[0]))
        following |= {this: (after, agent.gap_s) for this, after in pairwise(agent.requests)}

    def on_finish(request: EngineRequest, now: float) -> list[tuple[float, EngineRequest]]:
        if request not in following:
            return []
        after, gap_s = following[request]
        return [(now + gap_s, after)]

    return driver.run(first, on_finish)


def continuation_hit_ratio(agents: Iterable[Agent]) -> float:
    turns = [turn for agent in agents for turn in agent.requests[1:]]
    return sum(turn.cached_tokens or 0 for turn in turns) / sum(turn.prompt_tokens for turn in turns)


def run_working_set(ratio: float) -> float:
    """Continuation hit ratio with sessions whose peak contexts add up to ``ratio`` of the pool."""
    kv_tokens, peak_tokens = 100_000, 10_000
    count = int(ratio * kv_tokens / peak_tokens)
    agents = [Agent(f"a{i}", 6_000, 300, 100, turns=10, gap_s=1.0) for i in range(count)]
    driver = engine(kv_tokens)
    run_agents(driver, ((0.3 * i, agent) for i, agent in enumerate(agents)))
    assert driver.scheduler.pool.used_blocks == 0
    return continuation_hit_ratio(agents)


def test_the_hit_ratio_collapses_once_the_working_set_passes_the_pool() -> None:
    assert run_working_set(0.5) > 0.9
    assert run_working_set(2.5) < 0.4


def test_a_second_run_is_identical() -> None:
    def run() -> tuple[float, object, list[float | None]]:
        rng = random.Random(7)
        agents = [
            Agent(f"a{i}", rng.randint(50, 4000), 100, 40, turns=4, gap_s=rng.random()) for i in range(20)
        ]
        driver = engine(16_000, policy="priority")
        end_s = run_agents(driver, [(i * 0.1, agent) for i, agent in enumerate(agents)])
        return end_s, driver.scheduler.totals, [r.first_token_s for a in agents for r in a.requests]

    assert run() == run()


@given(st.integers(0, 10_000), st.sampled_from([3_000, 8_000, 40_000]))
@settings(max_examples=25, deadline=None)
def test_merged_decode_steps_change_neither_times_nor_hits(seed: int, kv_tokens: int) -> None:
    def run(merge_decodes: bool) -> tuple[list[EngineRequest], Scheduler]:
        rng = random.Random(seed)
        agents = [
            Agent(f"a{i}", rng.randint(16, 900), rng.randint(1, 200), rng.randint(1, 120), 3, rng.random())
            for i in range(rng.randint(1, 8))
        ]
        driver = engine(kv_tokens, merge_decodes=merge_decodes)
        run_agents(driver, [(rng.random(), agent) for agent in agents])
        return [turn for agent in agents for turn in agent.requests], driver.scheduler

    (merged, merged_scheduler), (single, single_scheduler) = run(True), run(False)
    assert merged_scheduler.totals == single_scheduler.totals
    assert [turn.cached_tokens for turn in merged] == [turn.cached_tokens for turn in single]
    assert [turn.first_token_s for turn in merged] == pytest.approx([turn.first_token_s for turn in single])


def test_an_arrival_waits_for_one_decode_step_not_for_the_merged_run() -> None:
    driver = engine(40_000)
    long = EngineRequest("long", 160, 2000, [hash(("long", i)) for i in range(135)])
    late = EngineRequest("late", 160, 1, [hash(("late", i)) for i in range(10)])
    driver.run([(0.0, long), (1.0, late)], lambda _request, _now: [])

    assert late.scheduled_s is not None
    assert 1.0 <= late.scheduled_s < 1.0 + 2 * roofline().seconds([(2000, 1)])


@dataclass(frozen=True)
class Ask:
    at_s: float
    prompt: int
    output: int
    priority: int
    chain: int
    gives_up_after_s: float | None
    """Of the client, if it does."""
    lease: KvLease | None


asks = st.lists(
    st.builds(
        Ask,
        at_s=st.floats(0.0, 6.0),
        prompt=st.integers(1, 1_500),
        output=st.integers(1, 300),
        priority=st.integers(0, 2),
        chain=st.integers(0, 5),
        gives_up_after_s=st.one_of(st.none(), st.none(), st.floats(0.0, 3.0)),
        lease=st.one_of(
            st.none(), st.builds(KvLease, st.sampled_from([0.5, 2.0]), st.sampled_from(YieldsTo))
        ),
    ),
    min_size=1,
    max_size=14,
)


@dataclass(frozen=True)
class Hint:
    at_s: float
    kind: str
    chain: int
    ttl_s: float | None
    yields_to: YieldsTo


hints = st.lists(
    st.builds(
        Hint,
        at_s=st.floats(0.0, 8.0),
        kind=st.sampled_from(["keep", "keep", "keep", "release", "demote", "swap_out", "reprioritise"]),
        chain=st.integers(0, 5),
        ttl_s=st.one_of(st.none(), st.floats(0.0, 3.0)),
        yields_to=st.sampled_from(YieldsTo),
    ),
    max_size=20,
)


class Driver:
    """What a simulator does: events in the order of time, the engine's own among them."""

    def __init__(
        self,
        asks: list[Ask],
        hints: list[Hint],
        kv_tokens: int,
        policy: str,
        patch: PatchRules | None,
        merge: bool,
    ) -> None:
        limits = SchedulerLimits(kv_tokens // BLOCK, policy=policy, patch=patch)  # type: ignore[arg-type]
        share = patch.max_leased_share if patch else 1.0
        self.store = ChainStore(limits.kv_blocks, host_blocks=200, max_leased_share=share)
        self.engine = VirtualEngine(
            Scheduler(limits, self.store),
            roofline().seconds,
            roofline().decode_seconds,
            roofline().host_copy_seconds,
            merge_decodes=merge,
        )
        self.requests = [
            EngineRequest(
                f"r{number}",
                ask.prompt,
                ask.output,
                chain=f"c{ask.chain}",
                priority=ask.priority,
                may_break_leases=ask.priority > 0,
                lease=ask.lease,
                **({"shared_chain": "system", "shared_tokens": 100} if ask.chain % 2 else {}),
            )
            for number, ask in enumerate(asks)
        ]
        self.ends: dict[str, float] = {}
        self.seen: list[object] = []
        events: list[tuple[float, Callable[[float], object]]] = []
        for request, ask in zip(self.requests, asks, strict=True):
            events.append((ask.at_s, partial(self.engine.add, request)))
            if ask.gives_up_after_s is not None:
                events.append((ask.at_s + ask.gives_up_after_s, partial(self.engine.abort, request)))
        events += [(hint.at_s, partial(self.give, hint)) for hint in hints]
        self.play(sorted(events, key=lambda event: event[0]))

    def give(self, hint: Hint, now: float) -> None:
        chain = f"c{hint.chain}"
        match hint.kind:
            case "keep":
                self.seen.append(self.engine.keep(chain, hint.ttl_s, hint.yields_to, now))
            case "swap_out":
                self.seen.append(self.engine.swap_out(chain, now))
            case "reprioritise":
                for request in [*self.engine.scheduler.running, *self.engine.scheduler.waiting]:
                    if request.chain == chain:
                        self.engine.reprioritise(request, 1, now)
            case kind:
                getattr(self.engine, kind)(chain, now)
        self.seen.append(self.engine.resident_tokens(chain, now))

    def play(self, events: list[tuple[float, Callable[[float], object]]]) -> None:
        engine = self.engine
        while events or engine.step_ends_s is not None:
            if engine.step_ends_s is not None and (not events or engine.step_ends_s <= events[0][0]):
                now = engine.step_ends_s
                for request in engine.finish_step():
                    if request.is_over:
                        self.ends[request.request_id] = now
            else:
                now, happen = events.pop(0)
                happen(now)
            engine.start(now)


@given(
    asks,
    hints,
    st.sampled_from([1_900, 2_500, 4_000, 9_000]),
    st.sampled_from(["fcfs", "priority"]),
    st.sampled_from([None, PatchRules(aging_s=1.0, max_leased_share=0.6)]),
)
@settings(max_examples=200, deadline=None)
def test_interrupted_runs_are_as_if_nothing_was_merged(
    asks: list[Ask], hints: list[Hint], kv_tokens: int, policy: str, patch: PatchRules | None
) -> None:
    merged, single = (Driver(asks, hints, kv_tokens, policy, patch, merge) for merge in (True, False))
    assert merged.engine.scheduler.totals == single.engine.scheduler.totals
    assert merged.ends == pytest.approx(single.ends)
    assert merged.seen == single.seen
    assert merged.store.take_endings() == single.store.take_endings()
    for mine, other in zip(merged.requests, single.requests, strict=True):
        assert (mine.phase, mine.generated_tokens) == (other.phase, other.generated_tokens)
        assert (mine.cached_tokens, mine.preemptions) == (other.cached_tokens, other.preemptions)
        assert mine.first_token_s == pytest.approx(other.first_token_s)
    assert merged.store.used_blocks == 0
    for chain in range(6):
        merged.store.release(f"c{chain}")
    assert merged.store.free_blocks == merged.store.total_blocks


def test_the_driver_is_idle_between_requests() -> None:
    driver = engine(4_000)
    driver.start(0.0)
    assert driver.step_ends_s is None
    driver.add(EngineRequest("one", 16, 1, [1]), 5.0)
    driver.start(5.0)
    assert driver.step_ends_s == 5.0 + roofline().seconds([(0, 16)])
    assert [each.request_id for each in driver.finish_step()] == ["one"]
    assert driver.step_ends_s is None

"""The chain store must be the block store in everything but cost: same batches, hits, preemptions, blocks."""

import random
from dataclasses import dataclass

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from loadgen.engine.chains import ChainStore
from loadgen.engine.requests import EngineRequest
from loadgen.engine.scheduler import Batch, Scheduler, SchedulerLimits

BLOCK = 4
SYSTEM_TOKENS = (0, 3, 9, 13)
"""Of the system prompt that a session stands on, by its number modulo four."""


@dataclass(frozen=True)
class Turn:
    """The next turn of a session, or what a client sends anew: anything that starts like the chain."""

    session: int
    new_tokens: int
    output_tokens: int
    priority: int
    starts_over: bool


@dataclass(frozen=True)
class Abort:
    which: int


@dataclass(frozen=True)
class Step:
    abort_in_flight: int | None


Action = Turn | Abort | Step

steps = st.builds(Step, abort_in_flight=st.one_of(st.none(), st.none(), st.integers(0, 20)))
actions = st.lists(
    st.one_of(
        st.builds(
            Turn,
            session=st.integers(0, 7),
            new_tokens=st.integers(1, 14),
            output_tokens=st.integers(1, 10),
            priority=st.integers(-1, 1),
            starts_over=st.sampled_from([False, False, False, True]),
        ),
        steps,
        steps,
        steps,
        st.builds(Abort, which=st.integers(0, 20)),
    ),
    max_size=90,
)
limits = st.builds(
    SchedulerLimits,
    kv_blocks=st.integers(16, 40),
    block_tokens=st.just(BLOCK),
    max_batched_tokens=st.integers(1, 40),
    max_running=st.integers(1, 5),
    policy=st.sampled_from(["fcfs", "priority"]),
)


class Twins:
    """The same requests under both stores, compared after every step."""

    def __init__(self, limits: SchedulerLimits) -> None:
        self.chained = Scheduler(limits, store=ChainStore(limits.kv_blocks, limits.block_tokens))
        self.blocked = Scheduler(limits)
        self.pairs: list[tuple[EngineRequest, EngineRequest]] = []
        self.context: dict[int, int] = {}

    def add(self, turn: Turn) -> None:
        system = SYSTEM_TOKENS[turn.session % 4]
        before = system if turn.starts_over else self.context.get(turn.session, system)
        prompt = before + turn.new_tokens
        if prompt + turn.output_tokens > self.blocked.limits.kv_blocks * BLOCK:
            return
        self.context[turn.session] = prompt + turn.output_tokens
        shared = f"system{system}" if system else None
        chain = f"s{turn.session}"
        hashes = [
            hash((shared if index < system // BLOCK else chain, index))
            for index in range((prompt + turn.output_tokens) // BLOCK)
        ]
        name, number = f"r{len(self.pairs)}", float(len(self.pairs))
        common = (name, prompt, turn.output_tokens)
        pair = (
            EngineRequest(
                *common,
                chain=chain,
                shared_chain=shared,
                shared_tokens=system,
                priority=turn.priority,
                arrival_s=number,
            ),
            EngineRequest(*common, hashes, priority=turn.priority, arrival_s=number),
        )
        self.pairs.append(pair)
        self.chained.add(pair[0])
        self.blocked.add(pair[1])

    def abort(self, which: int | None) -> None:
        if which is not None and 0 <= which < len(self.pairs):
            self.chained.abort(self.pairs[which][0])
            self.blocked.abort(self.pairs[which][1])

    def step(self, abort_in_flight: int | None = None) -> None:
        batches = self.chained.schedule(0.0), self.blocked.schedule(0.0)
        assert told(batches[0]) == told(batches[1])
        self.check()
        self.abort(abort_in_flight)
        self.check()
        self.chained.complete(batches[0], 0.0)
        self.blocked.complete(batches[1], 0.0)
        self.check()

    def check(self) -> None:
        ours, theirs = self.chained.pool, self.blocked.pool
        assert (ours.free_blocks, ours.used_blocks) == (theirs.free_blocks, theirs.used_blocks)
        assert self.chained.totals == self.blocked.totals
        for mine, other in self.pairs:
            assert mine.phase is other.phase
            assert mine.cached_tokens == other.cached_tokens
            assert (mine.held_blocks, mine.registered_blocks) == (other.held_blocks, other.registered_blocks)


def told(batch: Batch) -> tuple[list[tuple[str, int]], list[str]]:
    scheduled = [(each.request_id, tokens) for each, tokens in batch.scheduled.items()]
    return scheduled, [each.request_id for each in batch.preempted]


@given(limits, actions)
@settings(max_examples=300, deadline=None)
def test_both_stores_give_the_same_run(limits: SchedulerLimits, script: list[Action]) -> None:
    twins = Twins(limits)
    for action in script:
        match action:
            case Turn():
                twins.add(action)
            case Abort(which=which):
                twins.abort(which)
            case Step(abort_in_flight=which):
                twins.step(which)
    while twins.blocked.has_work:
        twins.step()
    assert twins.chained.pool.used_blocks == 0


@pytest.mark.parametrize("policy", ["fcfs", "priority"])
def test_both_stores_give_the_same_long_run_of_a_thrashing_pool(policy: str) -> None:
    """Long enough for chains to be evicted in part, computed again, preempted and computed twice."""
    rng = random.Random(5)
    twins = Twins(SchedulerLimits(60, BLOCK, 32, 6, policy))  # type: ignore[arg-type]
    for _ in range(2500):
        if rng.random() < 0.25 and len(twins.blocked.waiting) < 6:
            session = rng.randrange(9)
            starts_over = rng.random() < 0.15 or twins.context.get(session, 0) > 120
            sizes = rng.randint(1, 20), rng.randint(1, 20)
            twins.add(Turn(session, *sizes, rng.randint(0, 3), starts_over))
        twins.step(len(twins.pairs) - rng.randint(1, 5) if rng.random() < 0.05 else None)
    totals = twins.blocked.totals
    assert min(totals.preemptions, totals.aborted, totals.prefix_cache_hits // BLOCK) > 20


@pytest.mark.parametrize(
    ("request_", "words"),
    [
        (EngineRequest("r", 5, 1), "chain must be named"),
        (EngineRequest("r", 5, 1, chain="s", shared_tokens=4), "shared_chain and shared_tokens"),
    ],
)
def test_a_request_must_say_its_chain(request_: EngineRequest, words: str) -> None:
    scheduler = Scheduler(SchedulerLimits(kv_blocks=8), store=ChainStore(8))
    with pytest.raises(ValueError, match=words):
        scheduler.add(request_)

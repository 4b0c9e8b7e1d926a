"""Whatever happens in whatever order: blocks are conserved, nobody is lost, runs are repeatable."""

from collections import Counter
from dataclasses import dataclass

from hypothesis import given, settings
from hypothesis import strategies as st

from loadgen.engine.requests import EngineRequest, Phase
from loadgen.engine.scheduler import Scheduler, SchedulerLimits

BLOCK = 4


@dataclass(frozen=True)
class Arrive:
    stream: int
    prompt: int
    output: int
    priority: int


@dataclass(frozen=True)
class Abort:
    which: int


@dataclass(frozen=True)
class Step:
    abort_in_flight: int | None


Action = Arrive | Abort | Step

arrivals = st.builds(
    Arrive,
    stream=st.integers(0, 3),
    prompt=st.integers(1, 30),
    output=st.integers(1, 10),
    priority=st.integers(-1, 1),
)
actions = st.lists(
    st.one_of(
        arrivals,
        st.builds(Abort, which=st.integers(0, 20)),
        st.builds(Step, abort_in_flight=st.one_of(st.none(), st.integers(0, 20))),
        st.builds(Step, abort_in_flight=st.none()),
    ),
    max_size=60,
)
limits = st.builds(
    SchedulerLimits,
    kv_blocks=st.integers(10, 24),
    block_tokens=st.just(BLOCK),
    max_batched_tokens=st.integers(1, 40),
    max_running=st.integers(1, 5),
    policy=st.sampled_from(["fcfs", "priority"]),
)


def arrival(action: Arrive, number: int) -> EngineRequest:
    hashes = [hash((action.stream, index)) for index in range((action.prompt + action.output) // BLOCK)]
    return EngineRequest(
        f"r{number}", action.prompt, action.output, hashes, priority=action.priority, arrival_s=float(number)
    )


def play(scheduler: Scheduler, script: list[Action]) -> list[EngineRequest]:
    """Apply the script, then run what is left to its end; every request that ever arrived."""
    everybody: list[EngineRequest] = []
    for action in script:
        match action:
            case Arrive():
                everybody.append(arrival(action, len(everybody)))
                scheduler.add(everybody[-1])
            case Abort(which=which) if which < len(everybody):
                scheduler.abort(everybody[which])
            case Step(abort_in_flight=which):
                batch = scheduler.schedule(0.0)
                check(scheduler, everybody)
                if which is not None and which < len(everybody):
                    scheduler.abort(everybody[which])
                scheduler.complete(batch, 0.0)
            case _:
                pass
        check(scheduler, everybody)
    for _ in range(5000):
        if not scheduler.has_work:
            break
        scheduler.complete(scheduler.schedule(0.0), 0.0)
        check(scheduler, everybody)
    return everybody


def check(scheduler: Scheduler, everybody: list[EngineRequest]) -> None:
    pool = scheduler.pool
    held = Counter(block for each in everybody for block in each.blocks)
    assert pool.free_blocks + pool.used_blocks == pool.total_blocks
    assert len(held) == pool.used_blocks
    assert all(pool.references(block) == holders for block, holders in held.items())
    for each in everybody:
        assert len(set(each.blocks)) == len(each.blocks)
        if each.phase is not Phase.RUNNING:
            assert each.blocks == []
            continue
        # A block that is not full and registered belongs to one request alone.
        assert all(held[block] == 1 for block in each.blocks[each.registered_blocks :])
        assert len(each.blocks) * BLOCK >= each.computed_tokens
    running, waiting = set(scheduler.running), set(scheduler.waiting)
    assert not running & waiting
    assert running | waiting == {each for each in everybody if not each.is_over}
    assert len(running) <= scheduler.limits.max_running


@given(limits, actions)
@settings(max_examples=150, deadline=None)
def test_blocks_are_conserved_and_every_request_ends(limits: SchedulerLimits, script: list[Action]) -> None:
    scheduler = Scheduler(limits)
    everybody = play(scheduler, script)

    assert not scheduler.has_work
    assert scheduler.pool.used_blocks == 0
    for each in everybody:
        assert each.is_over
        if each.phase is Phase.FINISHED:
            assert each.generated_tokens == each.output_tokens
    assert scheduler.totals.finished + scheduler.totals.aborted == len(everybody)
    assert scheduler.totals.prefix_cache_hits <= scheduler.totals.prefix_cache_queries


@given(limits, actions)
@settings(max_examples=40, deadline=None)
def test_the_same_inputs_give_the_same_run(limits: SchedulerLimits, script: list[Action]) -> None:
    first, second = Scheduler(limits), Scheduler(limits)
    play(first, script)
    play(second, script)
    assert first.totals == second.totals


@given(limits, st.lists(arrivals, min_size=1, max_size=8))
@settings(max_examples=60, deadline=None)
def test_a_step_never_exceeds_its_budget_and_always_moves_somebody(
    limits: SchedulerLimits, script: list[Arrive]
) -> None:
    scheduler = Scheduler(limits)
    for number, action in enumerate(script):
        scheduler.add(arrival(action, number))
    while scheduler.has_work:
        batch = scheduler.schedule(0.0)
        assert sum(batch.scheduled.values()) <= limits.max_batched_tokens
        assert all(new > 0 for new in batch.scheduled.values())
        # Under the priority policy a request may preempt itself and leave its step empty.
        assert batch.scheduled or batch.preempted
        scheduler.complete(batch, 0.0)

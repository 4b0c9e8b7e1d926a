"""Playbooks: requests in, batches out, with blocks of 4 tokens so that the arithmetic fits in the head."""

from dataclasses import replace

import pytest

from loadgen.engine.requests import EngineRequest, Phase
from loadgen.engine.scheduler import RequestTooLargeError, Scheduler, SchedulerLimits

LIMITS = SchedulerLimits(kv_blocks=8, block_tokens=4, max_batched_tokens=16, max_running=4)


def request(name: str, prompt: int, output: int, *, stream: str = "", priority: int = 0) -> EngineRequest:
    """A request whose tokens are the first ones of ``stream``; its own stream if none is named."""
    hashes = [hash((stream or name, index)) for index in range((prompt + output) // 4)]
    return EngineRequest(name, prompt, output, hashes, priority=priority, arrival_s=0.0)


def scheduler_with(*requests: EngineRequest, **changes: object) -> Scheduler:
    scheduler = Scheduler(replace(LIMITS, **changes))  # type: ignore[arg-type]
    for each in requests:
        scheduler.add(each)
    return scheduler


def step(scheduler: Scheduler, now: float = 0.0) -> dict[str, int]:
    """One step: who got how many tokens."""
    batch = scheduler.schedule(now)
    scheduler.complete(batch, now)
    return {each.request_id: new for each, new in batch.scheduled.items()}


def run_out(scheduler: Scheduler) -> list[dict[str, int]]:
    steps = []
    while scheduler.has_work:
        steps.append(step(scheduler))
        assert len(steps) < 1000, "no progress"
    return steps


def test_a_request_is_prefilled_then_decodes_one_token_a_step() -> None:
    one = request("one", prompt=6, output=3)
    scheduler = scheduler_with(one)

    assert run_out(scheduler) == [{"one": 6}, {"one": 1}, {"one": 1}]
    assert one.phase is Phase.FINISHED
    assert (one.generated_tokens, one.cached_tokens) == (3, 0)
    assert scheduler.pool.used_blocks == 0


def test_a_long_prompt_is_chunked_to_the_token_budget() -> None:
    assert run_out(scheduler_with(request("long", prompt=25, output=1), max_batched_tokens=10)) == [
        {"long": 10},
        {"long": 10},
        {"long": 5},
    ]


def test_running_requests_come_before_waiting_ones() -> None:
    scheduler = scheduler_with(request("a", prompt=12, output=3))
    step(scheduler)
    scheduler.add(request("b", prompt=16, output=1))

    assert step(scheduler) == {"a": 1, "b": 15}
    assert step(scheduler) == {"a": 1, "b": 1}


def test_at_most_max_running_run() -> None:
    scheduler = scheduler_with(*(request(f"r{i}", prompt=2, output=2) for i in range(3)), max_running=2)

    assert step(scheduler) == {"r0": 2, "r1": 2}
    assert step(scheduler) == {"r0": 1, "r1": 1}
    assert step(scheduler) == {"r2": 2}


def test_a_continuation_hits_prompt_and_answer_of_the_turn_before() -> None:
    scheduler = scheduler_with(request("turn1", prompt=8, output=5, stream="s"))
    run_out(scheduler)
    turn2 = request("turn2", prompt=16, output=1, stream="s")
    scheduler.add(turn2)

    assert step(scheduler) == {"turn2": 4}
    assert turn2.cached_tokens == 12, "three full blocks; the last generated token was never computed"
    assert scheduler.totals.prefix_cache_hits == 12
    assert scheduler.totals.prefix_cache_queries == 8 + 16


def test_a_full_hit_still_computes_the_block_of_the_last_token() -> None:
    first, again = (request(name, prompt=8, output=1, stream="s") for name in ("first", "again"))
    scheduler = scheduler_with(first)
    run_out(scheduler)
    scheduler.add(again)

    assert step(scheduler) == {"again": 4}
    assert again.cached_tokens == 4


def test_requests_of_one_step_share_what_the_first_of_them_computes() -> None:
    first, second = (request(name, prompt=12, output=2, stream="s") for name in ("first", "second"))
    scheduler = scheduler_with(first, second, max_batched_tokens=64)

    assert step(scheduler) == {"first": 12, "second": 4}
    assert first.blocks[:2] == second.blocks[:2]
    assert first.blocks[2] != second.blocks[2]
    assert scheduler.pool.used_blocks == 4
    assert [scheduler.pool.references(block) for block in first.blocks] == [2, 2, 1]


def test_the_head_that_does_not_fit_whole_blocks_everybody_behind_it() -> None:
    scheduler = scheduler_with(request("runs", prompt=16, output=4))
    step(scheduler)
    scheduler.add(request("large", prompt=20, output=1))
    scheduler.add(request("small", prompt=1, output=1))

    assert step(scheduler) == {"runs": 1}, "four blocks are free before this step, large needs five"
    assert [each.request_id for each in scheduler.waiting] == ["large", "small"]


def test_the_fit_check_counts_idle_cached_blocks_as_taken() -> None:
    scheduler = scheduler_with(request("turn1", prompt=8, output=1, stream="s"))
    run_out(scheduler)
    scheduler.add(request("other", prompt=16, output=9))
    step(scheduler)
    assert scheduler.pool.free_blocks == 4
    scheduler.add(request("turn2", prompt=17, output=1, stream="s"))

    assert step(scheduler) == {"other": 1}, "two idle hits and three new blocks do not fit in three"


def test_fcfs_preempts_the_last_that_started_and_puts_it_back_in_front() -> None:
    a, b = request("a", prompt=16, output=8), request("b", prompt=16, output=8)
    later = request("later", prompt=1, output=1)
    scheduler = scheduler_with(a, b, max_batched_tokens=64)
    step(scheduler)
    scheduler.add(later)

    assert step(scheduler) == {"a": 1}, "all eight blocks are full, a needs a ninth"
    assert b.phase is Phase.WAITING
    assert (b.preemptions, b.computed_tokens, b.blocks) == (1, 0, [])
    assert [each.request_id for each in scheduler.waiting] == ["b", "later"]
    assert scheduler.totals.preemptions == 1


def test_a_preempted_request_hits_what_is_left_of_its_own_blocks_and_loses_no_token() -> None:
    a, b = request("a", prompt=16, output=8), request("b", prompt=16, output=8)
    scheduler = scheduler_with(a, b, max_batched_tokens=64)
    while not a.is_over:
        step(scheduler)
    assert (b.generated_tokens, b.preemptions) == (1, 1)

    assert step(scheduler) == {"b": 9}, "17 known, two blocks of it left by a's growth"
    assert b.cached_tokens == 0, "what the first admission found"
    run_out(scheduler)
    assert (b.phase, b.generated_tokens) == (Phase.FINISHED, 8)


def test_priority_runs_the_lower_number_first() -> None:
    scheduler = scheduler_with(
        request("low", prompt=2, output=1, priority=5),
        request("high", prompt=2, output=1, priority=-1),
        request("low2", prompt=2, output=1, priority=5),
        policy="priority",
        max_running=1,
    )
    assert run_out(scheduler) == [{"high": 2}, {"low": 2}, {"low2": 2}]


def test_priority_preempts_the_worst_even_if_it_was_scheduled_already() -> None:
    worst = request("worst", prompt=13, output=8, priority=9)
    best = request("best", prompt=16, output=8, priority=0)
    scheduler = scheduler_with(worst, policy="priority", max_batched_tokens=64)
    step(scheduler)
    scheduler.add(best)
    step(scheduler)  # both run, all eight blocks are taken

    assert step(scheduler) == {"best": 1}
    assert worst.phase is Phase.WAITING


def test_priority_may_preempt_the_request_that_asked() -> None:
    best = request("best", prompt=16, output=8, priority=0)
    worst = request("worst", prompt=16, output=8, priority=9)
    scheduler = scheduler_with(worst, policy="priority", max_batched_tokens=64)
    scheduler.add(best)
    step(scheduler)
    assert [each.request_id for each in scheduler.running] == ["best", "worst"]

    assert step(scheduler) == {"best": 1}
    assert [each.request_id for each in scheduler.waiting] == ["worst"]


def test_fcfs_ignores_the_number() -> None:
    scheduler = scheduler_with(
        request("a", prompt=2, output=1, priority=9), request("b", prompt=2, output=1), max_running=1
    )
    assert run_out(scheduler) == [{"a": 2}, {"b": 2}]


@pytest.mark.parametrize("policy", ["fcfs", "priority"])
def test_abort_frees_at_once_in_every_phase(policy: str) -> None:
    runs, waits = request("runs", prompt=16, output=4), request("waits", prompt=24, output=1)
    scheduler = scheduler_with(runs, waits, policy=policy)
    batch = scheduler.schedule(0.0)
    scheduler.abort(waits)
    scheduler.abort(runs)
    scheduler.abort(runs)

    assert scheduler.pool.used_blocks == 0
    assert not scheduler.has_work
    assert scheduler.complete(batch, 0.0) == [], "an aborted request generates nothing"
    assert scheduler.totals.aborted == 2


def test_abort_of_the_head_lets_the_rest_pass() -> None:
    head, rest = request("head", prompt=28, output=1), request("rest", prompt=2, output=1)
    scheduler = scheduler_with(request("runs", prompt=8, output=8), head, rest)
    step(scheduler)
    scheduler.abort(head)
    assert step(scheduler) == {"runs": 1, "rest": 2}


def test_what_can_never_fit_is_refused_and_blocks_nobody() -> None:
    scheduler = scheduler_with()
    with pytest.raises(RequestTooLargeError, match="33 tokens never fit a KV cache of 32 tokens"):
        scheduler.add(request("huge", prompt=32, output=1))
    scheduler.add(request("fits", prompt=31, output=1))
    assert run_out(scheduler) == [{"fits": 16}, {"fits": 15}]


@pytest.mark.parametrize(
    ("changes", "words"),
    [
        ({"max_running": 0}, "max_running must be at least 1"),
        ({"block_tokens": 0}, "block_tokens must be at least 1"),
        ({"kv_blocks": 0}, "total_blocks must be at least 1"),
        ({"policy": "lifo"}, "must be fcfs or priority"),
    ],
)
def test_bad_limits_name_the_key(changes: dict[str, object], words: str) -> None:
    with pytest.raises(ValueError, match=words):
        scheduler_with(**changes)


def test_an_empty_request_is_refused() -> None:
    with pytest.raises(ValueError, match="at least one token"):
        scheduler_with(request("empty", prompt=0, output=1))


def test_repr_says_the_state() -> None:
    scheduler = scheduler_with(request("a", prompt=2, output=2))
    assert repr(scheduler).startswith("<Scheduler 0 running, 1 waiting, <BlockPool 0 used")

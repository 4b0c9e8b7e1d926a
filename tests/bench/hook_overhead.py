"""What the patch adds to a step of vLLM's real scheduler: stock and patched in turn, in one process.

``python -m tests.bench.hook_overhead`` in an environment with vLLM. With 4,096 known sessions and 256 that
decode: nothing else; a turn of 512 blocks that ends with a lease and comes back, every other step; a
thousand that wait for memory. The executor computes nothing, and only the scheduler's own methods are timed,
in seconds of this thread's processor time, so that what else runs on the machine counts less. What is added
is set against a step of ``STEP_S``, as long as an accelerator takes for it.
"""

import gc
import statistics
import sys
import tempfile
import time
from collections.abc import Callable
from dataclasses import dataclass, field
from pathlib import Path

from tests.vllm.scheduler_bench import BLOCK, SchedulerBench

STEP_S = 0.010
"""256 decodes with contexts of some thousand tokens on a data-centre accelerator: 8 to 15 ms."""
RUNNING = 256
SESSIONS = 4096
STEPS = 500
HOOK_STEPS = 200
HOOKS = (
    *("request_added", "request_ended", "blocks_freeing", "blocks_freed", "request_preempted"),
    *("step_beginning", "step_scheduled", "step_ended", "make_room"),
)
CONTEXT = 2048
"""Tokens of each that runs."""
RETURNING_CONTEXT = 8192
RETURNING_SESSIONS = 8


@dataclass
class Side:
    """One of the two schedulers, and what its steps took."""

    bench: SchedulerBench
    seconds: list[float] = field(default_factory=list)
    arrivals: int = 0

    def step(self) -> None:
        bench = self.bench
        begin = time.thread_time()
        output = bench.scheduler.schedule()
        scheduled = time.thread_time()
        result = bench.result(output)
        ready = time.thread_time()
        if result is not None:
            bench.scheduler.update_from_output(output, result)
        self.seconds.append(scheduled - begin + time.thread_time() - ready)
        bench.now_s += STEP_S


@dataclass(frozen=True)
class Situation:
    name: str
    free_blocks: int
    """Beside those of the running ones."""
    session_ttl_ms: int
    """Of the known sessions, four blocks each."""
    waiting: int = 0
    before_step: Callable[[Side, int], None] = lambda side, step: None


def come_back(side: Side, step: int) -> None:
    """A session's next turn, with seven new blocks, every other step."""
    if step % 2:
        turn, session = divmod(side.arrivals, RETURNING_SESSIONS)
        side.arrivals += 1
        context = RETURNING_CONTEXT + turn * 7 * BLOCK
        side.bench.add(
            f"back{session}-{turn}", 50_000 + session, context, 8, session=f"b{session}", mars_ttl_ms=60_000
        )


SITUATIONS = (
    Situation("decodes", free_blocks=60_000, session_ttl_ms=300_000),
    Situation("returns", free_blocks=60_000, session_ttl_ms=300_000, before_step=come_back),
    Situation("queue", free_blocks=900, session_ttl_ms=0, waiting=1000),
)


def build(situation: Situation, *, patched: bool) -> Side:
    bench = SchedulerBench(
        Path(tempfile.mkdtemp()),
        patched=patched,
        blocks=RUNNING * (CONTEXT // BLOCK + (STEPS + HOOK_STEPS) // BLOCK + 3) + situation.free_blocks,
        max_batched_tokens=8192,
        max_running=RUNNING + 16,
        mars={"publish": True},
    )
    ttl_ms = situation.session_ttl_ms
    for number in range(SESSIONS):
        bench.add(f"s{number}", 10_000 + number, 4 * BLOCK, 1, session=f"s{number}", mars_ttl_ms=ttl_ms)
    bench.run()
    for number in range(RUNNING):
        bench.add(f"r{number}", number, CONTEXT, 10_000, session=f"r{number}", mars_ttl_ms=60_000)
    while len(bench.running) < RUNNING or any(not each.num_output_tokens for each in bench.running):
        bench.step()
    for number in range(situation.waiting):
        bench.add(f"w{number}", 20_000 + number, 1000 * BLOCK, 10, session=f"w{number}")
    return Side(bench)


def measure(situation: Situation) -> None:
    stock, patched = (build(situation, patched=patched) for patched in (False, True))
    for step in range(-20, STEPS):
        if step == 0:
            gc.collect()
            gc.freeze()
            stock.seconds.clear()
            patched.seconds.clear()
        for side in (stock, patched) if step % 4 < 2 else (patched, stock):
            situation.before_step(side, step)
            side.step()
    report(situation.name, stock, patched)
    seconds = time_hooks(situation, patched)
    sys.stdout.write(f"  hooks   {seconds * 1e6:7.1f} us a step on average: {seconds / STEP_S:.2%}\n")
    for side in (stock, patched):
        side.bench.scheduler.shutdown()
    gc.unfreeze()


def time_hooks(situation: Situation, patched: Side) -> float:
    """Seconds a step in the hooks themselves: without the noise of a difference, and without what the patch
    does when vLLM calls it (the waiting queue, the watched allocation)."""
    hooks, total = patched.bench.scheduler.mars, 0.0

    def timed(hook: Callable[..., object]) -> Callable[..., object]:
        def run(*args: object) -> object:
            nonlocal total
            begin = time.thread_time()
            result = hook(*args)
            total += time.thread_time() - begin
            return result

        return run

    for name in HOOKS:
        setattr(hooks, name, timed(getattr(hooks, name)))
    for step in range(HOOK_STEPS):
        situation.before_step(patched, step)
        patched.step()
    return total / HOOK_STEPS


def report(name: str, stock: Side, patched: Side) -> None:
    pairs = list(zip(stock.seconds, patched.seconds, strict=True))
    median = statistics.median(new - old for old, new in pairs)
    mean = statistics.fmean(patched.seconds) - statistics.fmean(stock.seconds)
    state = patched.bench.scheduler.mars.headroom(0)
    shares = f"{median / STEP_S:.2%} and {mean / STEP_S:.2%} of a step of {STEP_S * 1e3:g} ms"
    lines = (
        f"{name}: {state.running} run, {state.waiting} wait, {state.leases} leases",
        f"  stock   {statistics.median(stock.seconds) * 1e6:7.0f} us a step (median)",
        f"  patched {statistics.median(patched.seconds) * 1e6:7.0f} us",
        f"  added   {median * 1e6:7.1f} us in the median step, {mean * 1e6:.1f} us on average: {shares}",
    )
    sys.stdout.write("\n".join(lines) + "\n")
    sys.stdout.flush()


def main() -> None:
    for situation in SITUATIONS:
        if sys.argv[1:] in ([], [situation.name]):
            measure(situation)


if __name__ == "__main__":
    main()

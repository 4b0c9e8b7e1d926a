"""What the patch adds to a step of vLLM's real scheduler: stock and patched in turn, in one process.

``python -m tests.bench.hook_overhead`` in an environment with vLLM. Three situations, all with 4,096 known
sessions: 256 decodes; the same with a turn that ends, takes a lease and comes back every other step; and
with 1,000 requests that wait for memory. The scheduler's methods alone are timed, on an executor that
computes nothing; what they add is set against a step of ``STEP_S``, which is what the accelerator takes.
"""

import gc
import statistics
import sys
import tempfile
import time
from dataclasses import dataclass, field
from pathlib import Path

from tests.vllm.scheduler_bench import BLOCK, SchedulerBench

STEP_S = 0.010
"""A decode step of 256 requests on one data-centre accelerator: 8 to 15 ms."""
RUNNING = 256
SESSIONS = 4096
WAITING = 1000
STEPS = 400
CONTEXT = 2048
"""Tokens of those that run."""
RETURNING_CONTEXT = 8192


@dataclass
class Side:
    """One of the two schedulers, and the seconds its steps took."""

    bench: SchedulerBench
    seconds: list[float] = field(default_factory=list)
    returned: int = 0

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


def sides(blocks: int) -> list[Side]:
    made = []
    for patched in (False, True):
        bench = SchedulerBench(
            Path(tempfile.mkdtemp()),
            patched=patched,
            blocks=blocks,
            max_batched_tokens=8192,
            max_running=RUNNING + 16,
            mars={"publish": True},
        )
        for number in range(SESSIONS):
            bench.add(f"s{number}", 10_000 + number, 64, 1, session=f"s{number}", mars_ttl_ms=300_000)
        bench.run()
        for number in range(RUNNING):
            bench.add(f"r{number}", number, CONTEXT, 10_000, session=f"r{number}", mars_ttl_ms=60_000)
        while any(each.is_prefill_chunk or not each.num_output_tokens for each in bench.running):
            bench.step()
        made.append(Side(bench))
    return made


def decodes(side: Side, step: int) -> None:
    """Nothing comes and nothing goes."""


def returns(side: Side, step: int) -> None:
    """A session's turn every other step, with a hundred new tokens each."""
    if step % 2:
        session = side.returned % 8
        turn = side.returned // 8
        side.returned += 1
        context = RETURNING_CONTEXT + turn * 7 * BLOCK
        name = f"back{session}-{turn}"
        side.bench.add(name, 50_000 + session, context, 8, session=f"back{session}", mars_ttl_ms=60_000)


def measure(name: str, situation: object, blocks: int, waiting: int = 0) -> None:
    pair = sides(blocks)
    for side in pair:
        for number in range(waiting):
            side.bench.add(f"w{number}", 20_000 + number, 4096, 10, session=f"w{number}")
        for _ in range(20):
            side.step()
        side.seconds.clear()
    gc.collect()
    gc.disable()
    for step in range(STEPS):
        for side in pair if step % 2 else reversed(pair):
            situation(side, step)  # type: ignore[operator]
            side.step()
    gc.enable()
    report(name, *pair)
    for side in pair:
        side.bench.scheduler.shutdown()


def report(name: str, stock: Side, patched: Side) -> None:
    medians = [statistics.median(side.seconds) * 1e6 for side in (stock, patched)]
    means = [statistics.fmean(side.seconds) * 1e6 for side in (stock, patched)]
    added = statistics.median([new - old for old, new in zip(stock.seconds, patched.seconds, strict=True)])
    sys.stdout.write(
        f"{name:8} stock {medians[0]:6.0f} us, patched {medians[1]:6.0f} us; "
        f"added {added * 1e6:5.1f} us in the median step, {means[1] - means[0]:6.1f} us on average: "
        f"{added / STEP_S:.2%} and {(means[1] - means[0]) / STEP_S / 1e6:.2%} "
        f"of a step of {STEP_S * 1e3:g} ms\n"
    )
    state = patched.bench.scheduler.mars.headroom(0)
    sys.stdout.write(
        f"         {state.running} running, {state.waiting} waiting, {state.leases} leases, "
        f"{state.resumed_total} resumed, passthrough {state.passthrough}\n"
    )


def main() -> None:
    measure("decodes", decodes, blocks=80_000)
    measure("returns", returns, blocks=80_000)
    measure("queue", decodes, blocks=RUNNING * CONTEXT // BLOCK + SESSIONS * 4 + 1000, waiting=WAITING)


if __name__ == "__main__":
    main()

"""How long a reader of the engine's headroom waits, while nothing runs and while a 50,000-token prefill does.

    python tests/bench/headroom_latency.py            # in the environment with vLLM

Milliseconds by the clock of this machine, over HTTP, on the emulated accelerator: the prefill's steps last as
long as on the hardware that it imitates, so the engine is as busy as it would be. A call to the engine itself
(GET of the sessions), which waits for its step to end, is timed beside it.
"""

import asyncio
import random
import tempfile
import time
from collections.abc import Awaitable, Callable
from pathlib import Path
from statistics import quantiles
from typing import Annotated, Any

import cyclopts
from rich.console import Console
from rich.table import Table

from backend_patch.emulator.tiny_model import write_tiny_model
from tests.vllm.emulated import emulated_vllm
from tests.vllm.engine_client import Context, EngineClient, engine_client
from tests.vllm.scenes import idle, running

LONG_TOKENS = 50_000
IDLE_S = 2.0
PAUSE_S = 0.01
"""Between two reads: 20 times as often as a proxy reads."""

Latencies = dict[str, list[float]]


async def ask_while(task: "asyncio.Task[Any]", ask: Callable[[], Awaitable[Any]]) -> list[float]:
    found = []
    while not task.done():
        asked_s = time.perf_counter()
        await ask()
        found.append(time.perf_counter() - asked_s)
        await asyncio.sleep(PAUSE_S)
    return found


async def both_while(engine: EngineClient, what: Awaitable[Any], found: Latencies, state: str) -> None:
    async with asyncio.TaskGroup() as group:
        task = group.create_task(_awaited(what))
        if state != "idle":
            await running(engine, 1)
        read = group.create_task(ask_while(task, engine.headroom))
        asked = group.create_task(ask_while(task, engine.sessions))
    found.setdefault(f"headroom, {state}", []).extend(read.result())
    found.setdefault(f"call to the engine, {state}", []).extend(asked.result())


async def _awaited(what: Awaitable[Any]) -> Any:
    return await what


async def measure(url: str, repeats: int) -> Latencies:
    chance, found = random.Random(0), Latencies()
    async with engine_client(url) as engine:
        await engine.turn(Context("first", chance), 1_000)
        for number in range(repeats):
            await idle(engine)
            await both_while(engine, asyncio.sleep(IDLE_S), found, "idle")
            long_turn = engine.turn(Context(f"long-{number}", chance), LONG_TOKENS)
            await both_while(engine, long_turn, found, "prefill")
    return found


def main(
    repeats: Annotated[int, cyclopts.Parameter(validator=cyclopts.validators.Number(gte=1))] = 5,
) -> None:
    with tempfile.TemporaryDirectory() as folder:
        write_tiny_model(Path(folder))
        with emulated_vllm(Path(folder), Path(folder) / "log", patch=True) as server:
            found = asyncio.run(measure(server.url, repeats))
    table = Table("ms", "count", "p50", "p90", "p99", "most")
    for name, latencies in found.items():
        cuts = quantiles(latencies, n=100)
        row = (cuts[49], cuts[89], cuts[98], max(latencies))
        table.add_row(name, str(len(latencies)), *(f"{1e3 * each:.1f}" for each in row))
    Console().print(table)


if __name__ == "__main__":
    cyclopts.run(main)

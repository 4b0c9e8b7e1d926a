"""A live run and a simulated one on the same seed: the same times, the same hits, the same decisions.

The engine and the proxy are processes of their own, as in a deployment; the load is the demonstration's, on
a pool five times too small, so nearly every session is held and some lose what they had cached. By hand:
docs/load-generator.md, "Simulated against live".
"""

import asyncio
import json
import sys
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from pathlib import Path
from typing import Any

import pytest

from marsproxy.children import Child

KV_TOKENS = 56_000
LOAD = ("--workload", "demo", "--sessions", "40", "--rate", "1.5", "--seed", "1")


@asynccontextmanager
async def started(*words: str) -> AsyncIterator[str]:
    child = Child(*words)
    try:
        yield await child.start()
    finally:
        await child.stop()


async def ran(*words: str) -> str:
    """What a command of ours printed; it must succeed."""
    process = await asyncio.create_subprocess_exec(
        *(sys.executable, "-m", *words), stdout=asyncio.subprocess.PIPE, stderr=asyncio.subprocess.STDOUT
    )
    printed, _ = await process.communicate()
    assert process.returncode == 0, printed.decode()
    return printed.decode()


async def run_live(policy: str, engine_order: str, out: Path, log: Path) -> None:
    pool = ("--kv-tokens", str(KV_TOKENS))
    async with (
        started(
            *("loadgen", "engine", "--port", "0", *pool, "--scheduling-policy", engine_order),
            *("--stream-interval", "8"),
        ) as engine,
        started(
            *("marsproxy", "serve", "--port", "0", "--backend", engine, "--policy", policy),
            *("--event-log", str(log), "--log-level", "warning"),
        ) as proxy,
    ):
        await ran("loadgen", "run", "--target", proxy, *LOAD, "--answers", "calls", "--out", str(out))


def summary(out: Path) -> dict[str, Any]:
    told = json.loads((out / "summary.json").read_bytes())
    assert isinstance(told, dict)
    assert told["failed"] == 0
    return told


def tokens_of_turns(out: Path) -> dict[tuple[str, int], tuple[int, int]]:
    turns = map(json.loads, (out / "turns.jsonl").read_text().splitlines())
    return {(turn["session"], turn["turn"]): (turn["prompt_tokens"], turn["output_tokens"]) for turn in turns}


@pytest.mark.slow
@pytest.mark.timeout(300)
@pytest.mark.parametrize(("policy", "engine_order"), [("mars", "priority"), ("fcfs", "fcfs")])
async def test_a_simulated_run_is_like_the_live_one(tmp_path: Path, policy: str, engine_order: str) -> None:
    await run_live(policy, engine_order, tmp_path / "live", tmp_path / "log")
    pool = ("--kv-tokens", str(KV_TOKENS), "--no-hints")
    await ran("loadgen", "simulate", "--policy", policy, *pool, *LOAD, "--out", str(tmp_path / "simulated"))

    live, simulated = summary(tmp_path / "live"), summary(tmp_path / "simulated")
    assert tokens_of_turns(tmp_path / "live") == tokens_of_turns(tmp_path / "simulated")
    assert live["jct_s"]["mean"] == pytest.approx(simulated["jct_s"]["mean"], rel=0.05)
    assert live["continuation_hit_ratio"] == pytest.approx(simulated["continuation_hit_ratio"], abs=0.02)
    assert "identical" in await ran("marsproxy", "replay", str(tmp_path / "log"))

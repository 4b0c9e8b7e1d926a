"""``marsproxy demo``: the whole system on one machine without a GPU, with and without the proxy.

Starts the embedded engine with a KV pool several times too small for the load, the gateway and the
proxy; replays the same agent sessions, with real tool commands, straight to the engine and through the
proxy; prints the comparison and stops everything again. Knows the other packages by their command lines
only.
"""

import asyncio
import sys
from contextlib import AsyncExitStack
from pathlib import Path

from rich.console import Console

from marsproxy.children import Child, ChildFailed

KV_TOKENS = 56_000
"""The default sessions grow to about 12,000 tokens each: thirty of them want six times the pool."""
TOOL_SLOTS = 64
"""The demonstration's commands mostly sleep; the gateway's queue is not what it shows."""
ARRIVALS_PER_S = 2.0
"""All sessions are there within a quarter of a minute, as at the start of an evaluation run."""
STREAM_INTERVAL = 8
"""Tokens per streamed chunk: three servers and a load generator share the machine's few cores."""


def run_demo(*, sessions: int, seed: int, repeats: int, out: Path) -> int:
    """Run it; returns the exit code. ``out`` gets the records and the report."""
    return asyncio.run(_demo(sessions, seed, repeats, out))


async def _demo(sessions: int, seed: int, repeats: int, out: Path) -> int:
    console = Console(stderr=True)
    async with AsyncExitStack() as stack:
        try:
            engine, gateway, proxy = await _start_servers(stack, console)
        except ChildFailed as exc:
            console.print(f"marsproxy demo: {exc}", markup=False, highlight=False)
            return 1
        compare = await asyncio.create_subprocess_exec(
            *(sys.executable, "-m", "loadgen", "compare", f"direct={engine}", f"proxy={proxy}"),
            *("--workload", "demo", "--sessions", str(sessions), "--seed", str(seed)),
            *("--rate", str(ARRIVALS_PER_S), "--repeats", str(repeats), "--out", str(out)),
            *("--tools", "gateway", "--gateway", gateway, "--engine", engine, "--answers", "calls"),
        )
        try:
            code = await compare.wait()
        except asyncio.CancelledError:
            # Ctrl-C reached it too: it stops cleanly and keeps what was measured.
            code = await compare.wait()
    if (report := out / "report.html").exists():
        console.print(f"report: {report}", markup=False, highlight=False, soft_wrap=True)
    return code


async def _start_servers(stack: AsyncExitStack, console: Console) -> tuple[str, str, str]:
    """URLs of engine, gateway and proxy; all are stopped when the stack is left."""

    async def start(what: str, child: Child) -> str:
        stack.push_async_callback(child.stop)
        url = await child.start()
        console.print(f"{what}: {url}", highlight=False)
        return url

    engine = await start(
        f"engine (model of one H100 with room for {KV_TOKENS:,} tokens of KV)",
        Child(
            *("loadgen", "engine", "--port", "0", "--kv-tokens", str(KV_TOKENS)),
            *("--scheduling-policy", "priority", "--stream-interval", str(STREAM_INTERVAL)),
        ),
    )
    proxy = await start(
        "proxy", Child("marsproxy", "serve", "--port", "0", "--backend", engine, "--log-level", "warning")
    )
    gateway = await start(
        "tool gateway",
        Child("gateway", "serve", "--port", "0", "--slots", str(TOOL_SLOTS), "--proxy", proxy),
    )
    return engine, gateway, proxy

"""Watches how late the event loop is, the first thing to look at when the proxy is slow."""

import asyncio
from collections.abc import Callable

INTERVAL_S = 0.25
"""Four samples a second: a stall of 100 ms shows, and the watching costs nothing."""


async def watch_loop_lag(observe: Callable[[float], None], interval_s: float = INTERVAL_S) -> None:
    """Call ``observe`` with the lateness of a timer, in seconds, until cancelled."""
    loop = asyncio.get_running_loop()
    while True:
        due = loop.time() + interval_s
        await asyncio.sleep(interval_s)
        observe(max(0.0, loop.time() - due))

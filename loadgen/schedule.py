"""Starts sessions when the load says so, and waits for them: the outer loop of a live run."""

import asyncio
from collections.abc import Awaitable, Callable
from typing import assert_never

from loadgen.arrivals import AsTraced, ClosedLoop, Load, OpenLoop, arrival_times
from loadgen.workload import Session

START_SPACING_S = 0.001
"""Between the first sessions of a closed loop. A session's first request costs the driver about 0.35 ms (a
connection, the system prompt): a thousand at one instant would queue in the driver, and show as TTFT."""

Play = Callable[[Session, float], Awaitable[None]]
"""Plays one session that arrived at so many seconds."""


async def play_all(
    load: Load, sessions: list[Session], seed: int, play: Play, clock: Callable[[], float]
) -> None:
    match load:
        case OpenLoop() | AsTraced():
            times = arrival_times(load, sessions, seed)
            await play_at(sorted(zip(times, sessions, strict=True), key=lambda pair: pair[0]), play, clock)
        case ClosedLoop(agents):
            await play_by(agents, sessions, play, clock)
        case _:
            assert_never(load)


async def play_at(arrivals: list[tuple[float, Session]], play: Play, clock: Callable[[], float]) -> None:
    async with asyncio.TaskGroup() as group:
        for at_s, session in arrivals:
            if (wait_s := at_s - clock()) > 0:
                await asyncio.sleep(wait_s)
            group.create_task(_played(play, session, at_s))


async def play_by(agents: int, sessions: list[Session], play: Play, clock: Callable[[], float]) -> None:
    waiting = iter(sessions)

    async def agent() -> None:
        for session in waiting:
            await play(session, clock())

    async with asyncio.TaskGroup() as group:
        for _ in range(min(agents, len(sessions))):
            group.create_task(agent())
            await asyncio.sleep(START_SPACING_S)


async def _played(play: Play, session: Session, at_s: float) -> None:
    await play(session, at_s)

"""Keeps what discovery tells, and waits for it."""

import asyncio
from collections.abc import AsyncIterator, Callable, Sequence
from contextlib import asynccontextmanager
from dataclasses import dataclass, field

from marsproxy.discovery.endpoint import Discovery, Endpoint

HANG_S = 10.0


@dataclass
class Listener:
    told: list[Sequence[Endpoint]] = field(default_factory=list)
    looks: list[int | None] = field(default_factory=list)

    async def found(self, endpoints: Sequence[Endpoint]) -> None:
        self.told.append(endpoints)

    def looked(self, source: str, found: int | None) -> None:
        self.looks.append(found)

    @property
    def names(self) -> list[str]:
        return [endpoint.name for endpoint in self.told[-1]] if self.told else []

    async def until(self, condition: Callable[[], bool]) -> None:
        async with asyncio.timeout(HANG_S):
            while not condition():  # noqa: ASYNC110
                await asyncio.sleep(0.005)


@asynccontextmanager
async def running(discovery: Discovery, listener: Listener) -> AsyncIterator[Listener]:
    task = asyncio.get_running_loop().create_task(discovery.run(listener.found))
    try:
        yield listener
    finally:
        task.cancel()
        await asyncio.wait((task,))
        assert task.cancelled()

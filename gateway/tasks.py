"""Keeps the tasks that outlive the call that started them.

A TaskGroup cancels its siblings when one fails; commands of strangers must not end each other, so here
a failure is logged and the others go on.
"""

import asyncio
import logging
from collections.abc import Coroutine
from typing import Any, TypeVar

log = logging.getLogger(__name__)

T = TypeVar("T")


class Tasks:
    def __init__(self, *answers: type[Exception]) -> None:
        """``answers``: what tasks may raise for whoever waits for them, and what is no failure of theirs."""
        self._answers = answers
        self._tasks: set[asyncio.Task[Any]] = set()

    def __len__(self) -> int:
        return len(self._tasks)

    def spawn(self, name: str, coro: Coroutine[Any, Any, T]) -> asyncio.Task[T]:
        task = asyncio.get_running_loop().create_task(coro, name=name)
        self._tasks.add(task)
        task.add_done_callback(self._forget)
        return task

    async def join(self, timeout_s: float | None = None) -> None:
        """Wait until all have ended by themselves, or so long."""
        loop = asyncio.get_running_loop()
        until_s = None if timeout_s is None else loop.time() + timeout_s
        while self._tasks and (until_s is None or loop.time() < until_s):
            left_s = None if until_s is None else until_s - loop.time()
            await asyncio.wait(self._tasks, timeout=left_s)

    async def close(self) -> None:
        """Cancel all and wait until they have ended."""
        for task in self._tasks:
            task.cancel()
        await self.join()

    def _forget(self, task: asyncio.Task[Any]) -> None:
        self._tasks.discard(task)
        if task.cancelled() or (error := task.exception()) is None:
            return
        if not isinstance(error, self._answers):
            log.error("task %s failed", task.get_name(), exc_info=error)

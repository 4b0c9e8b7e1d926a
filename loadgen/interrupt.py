"""Ctrl-C: once to stop and keep what was measured, twice to leave at once."""

import asyncio
import os
import signal
from collections.abc import Callable, Coroutine, Iterable, Iterator
from contextlib import contextmanager

EXIT_INTERRUPTED = 130
"""128 + SIGINT, as shells report it."""


@contextmanager
def on_interrupt(stop: Callable[[], None]) -> Iterator[None]:
    """While inside: the first SIGINT or SIGTERM calls ``stop``, the second ends the process."""
    loop = asyncio.get_running_loop()
    seen = 0

    def handle() -> None:
        nonlocal seen
        seen += 1
        if seen > 1:
            # Nothing of ours may delay it: no cleanup, no flush.
            os._exit(EXIT_INTERRUPTED)
        stop()

    signals = (signal.SIGINT, signal.SIGTERM)
    for number in signals:
        loop.add_signal_handler(number, handle)
    try:
        yield
    finally:
        for number in signals:
            loop.remove_signal_handler(number)


async def until_done_or_stopped(
    work: Coroutine[None, None, None], watchers: Iterable[Coroutine[None, None, None]]
) -> bool:
    """Does the work beside watchers that never end by themselves. True: it was interrupted, once."""
    is_interrupted = False
    async with asyncio.TaskGroup() as group:
        watching = [group.create_task(watcher) for watcher in watchers]
        working = group.create_task(work)

        def stop() -> None:
            nonlocal is_interrupted
            is_interrupted = True
            working.cancel()

        with on_interrupt(stop):
            await asyncio.wait([working])
        for task in watching:
            task.cancel()
    return is_interrupted

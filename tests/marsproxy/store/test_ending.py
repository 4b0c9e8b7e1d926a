"""A journal ends when it is told to, whatever its store does and whatever it is in the middle of."""

import asyncio
import contextlib
from collections.abc import AsyncIterator, Callable

import pytest

from gateway.tasks import Tasks
from marsproxy.store.redis_journal import Patience
from tests.marsproxy.store.redis_process import RedisProcess
from tests.marsproxy.store.replicas import BOUND_S, Member, observed, until
from tests.scale.wires import Forwarder, Wire

ENDINGS = 30
"""One in three hung when a task group could keep the cancellation of its journal to itself."""


@contextlib.asynccontextmanager
async def slow_way(redis: RedisProcess, delay_s: float) -> AsyncIterator[str]:
    """A URL of this store, so much further away in each direction."""
    tasks, wire = Tasks(), Wire()
    wire.delay_s = delay_s
    way = Forwarder(tasks, lambda: [("127.0.0.1", redis.port)], lambda _: wire)
    await way.up()
    try:
        yield f"redis://127.0.0.1:{way.port}/0"
    finally:
        await way.close()
        await tasks.close()


async def serve_and_stop(
    url: str, served_s: float, patience: Patience, then: Callable[[], None] = lambda: None
) -> Member:
    """Tells things without a pause, until the end and beyond it."""
    member = Member(url, patience=patience)
    async with asyncio.timeout(BOUND_S), asyncio.TaskGroup() as group:
        talk = group.create_task(_talk(member))
        async with member.redis_journal.open():
            await asyncio.sleep(served_s)
            then()
        talk.cancel()
    return member


async def _talk(member: Member) -> None:
    while True:
        member.journal.append(observed())
        await asyncio.sleep(0.003)


@pytest.mark.slow
@pytest.mark.parametrize("delay_s", [0.0, 0.05])
async def test_an_end_while_records_flow(redis: RedisProcess, delay_s: float) -> None:
    """And it has left: none is given up by others, none joins anew behind its own goodbye."""
    async with slow_way(redis, delay_s) as url, members_before(redis) as watcher:
        for number in range(ENDINGS):
            member = await serve_and_stop(url, 0.05 + number % 7 * 0.037, Patience(2.0, 5.0))
            assert (member.status.separations, member.status.given_up) == (0, 0)
        await until(lambda: list(watcher.state.members) == [watcher.journal.member])
        assert watcher.status.adoptions + watcher.status.foundings == 1


@pytest.mark.slow
@pytest.mark.filterwarnings("ignore::pytest.PytestUnraisableExceptionWarning")
async def test_an_end_while_the_store_is_stopped(redis: RedisProcess) -> None:
    """At the end of patience, before it, and a store that goes on in the middle of an ending. The client of
    Redis leaves a socket of a call that was given up to the garbage collector now and then, which warns."""
    loop = asyncio.get_running_loop()

    def stop_for(pause_s: float) -> None:
        redis.pause()
        loop.call_later(pause_s, redis.go_on)

    for number in range(ENDINGS):
        pause_s = 0.1 + number % 6 * 0.1
        await serve_and_stop(redis.url, 0.1, Patience(0.3, 1.0), lambda p=pause_s: stop_for(p))  # type: ignore[misc]
        await asyncio.sleep(0.2)
        redis.go_on()


async def test_an_end_while_joining_is_cancelled(redis: RedisProcess) -> None:
    """A start that nobody waits for any more leaves no task behind."""
    redis.pause()
    try:
        member = Member(redis.url, patience=Patience(20.0, 30.0))
        before = asyncio.all_tasks()
        opening = asyncio.get_running_loop().create_task(_open(member))
        await asyncio.sleep(0.05)
        opening.cancel()
        async with asyncio.timeout(BOUND_S):
            await asyncio.wait([opening])
        assert opening.cancelled()
        assert asyncio.all_tasks() == before
    finally:
        redis.go_on()


async def _open(member: Member) -> None:
    async with member.redis_journal.open():
        raise AssertionError("the store answered")


@contextlib.asynccontextmanager
async def members_before(redis: RedisProcess) -> AsyncIterator[Member]:
    """One that stays, and sees what the others do."""
    member = Member(redis.url, patience=Patience(5.0, 20.0))
    async with member.redis_journal.open():
        yield member

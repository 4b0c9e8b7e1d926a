"""Background tasks are kept, reported and ended."""

import asyncio
import gc

import pytest

from marsproxy.tasks import TaskOwner


async def test_a_task_survives_collection() -> None:
    """asyncio alone would let it go while it waits."""
    owner, done = TaskOwner(), asyncio.Event()
    started = asyncio.Event()

    async def work() -> None:
        started.set()
        await asyncio.sleep(0.01)
        done.set()

    owner.spawn("work", work())
    await started.wait()
    gc.collect()
    await asyncio.wait_for(done.wait(), timeout=5)
    await asyncio.sleep(0)
    assert len(owner) == 0


async def test_close_cancels_and_waits() -> None:
    """After it nothing runs, and what was cancelled has cleaned up."""
    owner, cleaned = TaskOwner(), []

    async def wait_for_ever(name: str) -> None:
        try:
            await asyncio.Event().wait()
        finally:
            await asyncio.sleep(0)
            cleaned.append(name)

    for name in ("a", "b"):
        owner.spawn(name, wait_for_ever(name))
    await asyncio.sleep(0)
    await owner.close()
    assert sorted(cleaned) == ["a", "b"]
    assert len(owner) == 0


async def test_a_failure_that_nobody_awaits_is_logged(caplog: pytest.LogCaptureFixture) -> None:
    """With the task's name; the owner goes on."""
    owner = TaskOwner()

    async def fail() -> None:
        raise ValueError("broken")

    task = owner.spawn("the failing one", fail())
    await asyncio.wait([task])
    await asyncio.sleep(0)  # the owner's callback comes after ours
    assert len(owner) == 0
    assert "the failing one" in caplog.text
    assert "broken" in caplog.text

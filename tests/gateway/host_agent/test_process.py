"""Leaders."""

from __future__ import annotations

import asyncio
import os
import signal
from pathlib import Path

from gateway.host_agent.process import Launch, identity, spawn
from gateway.host_agent.process_use import rss_mb, use_of_sessions


def launch(*argv: str, directory: Path = Path("/")) -> Launch:
    return Launch(list(argv), [directory], {"PATH": os.environ["PATH"]}, streams=(0, 1, 2))


async def test_a_leader_is_reaped_last() -> None:
    leader = spawn(launch("sleep", "300"))
    assert await leader.refusal() is None
    found = identity(leader.pid)
    assert found is not None
    leader.signal_group(signal.SIGKILL)
    await asyncio.wait_for(leader.gone(), 60)
    assert identity(leader.pid) == found, "it is still its number"
    leader.reap()
    assert leader.returncode == -signal.SIGKILL
    assert identity(leader.pid) is None


async def test_a_signal_before_it_is_a_program_is_heard() -> None:
    for _ in range(10):
        leader = spawn(launch("sleep", "300"))
        assert leader.signal_group(signal.SIGTERM)
        await asyncio.wait_for(leader.gone(), 60)
        leader.close()
        leader.reap()
        assert leader.returncode == -signal.SIGTERM


async def test_signals_to_the_child_are_not_told_to_our_loop() -> None:
    heard = []
    loop = asyncio.get_running_loop()
    loop.add_signal_handler(signal.SIGTERM, heard.append, 1)
    try:
        await test_a_signal_before_it_is_a_program_is_heard()
    finally:
        loop.remove_signal_handler(signal.SIGTERM)
    assert heard == []


async def test_a_refused_one_says_why_and_is_gone(tmp_path: Path) -> None:
    for leader, reason in [
        (spawn(launch("no-such-program-x")), "no such program"),
        (spawn(launch("true", directory=tmp_path / "none")), "working directory cannot be entered: No such"),
        (spawn(launch(str(tmp_path))), "may not be entered"),
    ]:
        refused = await leader.refusal()
        assert refused is not None
        assert reason in refused.message
        await asyncio.wait_for(leader.gone(), 60)
        leader.reap()


async def test_use_is_of_the_whole_session() -> None:
    leader = spawn(launch("bash", "-c", "sleep 300 & sleep 300"))
    assert await leader.refusal() is None
    alone = rss_mb([leader.pid])
    while use_of_sessions([leader.pid])[leader.pid][1] <= alone:  # noqa: ASYNC110 - nobody tells
        await asyncio.sleep(0.01)
    leader.signal_group(signal.SIGKILL)
    await asyncio.wait_for(leader.gone(), 60)
    leader.reap()
    while use_of_sessions([leader.pid]) != {leader.pid: (0.0, 0.0)}:  # noqa: ASYNC110 - nor of its end
        await asyncio.sleep(0.01)

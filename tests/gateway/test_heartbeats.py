"""Silence of a client."""

import asyncio
from typing import cast

from gateway.exec_record import Exec
from gateway.heartbeats import Heartbeats
from gateway.protocol import ExecState


class Record:
    def __init__(self, name: str, state: ExecState = ExecState.RUNNING) -> None:
        self.id = name
        self.state = state


class FakeExecs:
    def __init__(self) -> None:
        self.cancelled: list[str] = []

    def cancel(self, record: Exec, reason: str) -> None:
        self.cancelled.append(record.id)


def record(name: str, state: ExecState = ExecState.RUNNING) -> Exec:
    return cast(Exec, Record(name, state))


async def test_silence_cancels_and_a_beat_moves_the_end() -> None:
    execs = FakeExecs()
    beats = Heartbeats(execs)
    beats.beat(record("silent"), 0.0)
    beats.beat(record("beats"), 0.0)
    beats.beat(record("beats"), 3600.0)
    await asyncio.sleep(0.01)
    assert (execs.cancelled, len(beats)) == (["silent"], 1)
    beats.close()
    assert len(beats) == 0


async def test_what_is_over_needs_none() -> None:
    beats = Heartbeats(FakeExecs())
    beats.beat(record("over", ExecState.EXITED), 3600.0)
    assert len(beats) == 0


async def test_nothing_is_cancelled_after_the_end() -> None:
    execs = FakeExecs()
    beats = Heartbeats(execs)
    beats.beat(record("a"), 0.0)
    beats.close()
    await asyncio.sleep(0.01)
    assert execs.cancelled == []

"""The events of a command: order, resumption, what a slow reader costs."""

import asyncio
import base64
import contextlib
from collections.abc import AsyncIterator
from typing import Any

import msgspec
import pytest
from hypothesis import given
from hypothesis import strategies as st

from gateway.errors import host_lost
from gateway.exec_events import CHUNK_BYTES, ExecEvents, Position, encoded, read_position
from gateway.host import Chunk
from gateway.protocol import ExecState, ExecStatus, StreamName, StreamStatus
from gateway.stream_protocol import (
    ExitEvent,
    HeartbeatEvent,
    OutputEvent,
    OutputLostEvent,
    QueuedEvent,
    StartedEvent,
    StreamEvent,
)

pytestmark = pytest.mark.slow  # real processes throughout


class FakeExec:
    """A command that the test moves on."""

    def __init__(self, state: ExecState = ExecState.QUEUED) -> None:
        self.state = state
        self.position: int | None = None
        self.bytes = {StreamName.STDOUT: b"", StreamName.STDERR: b""}
        self.reads: list[tuple[StreamName, int]] = []
        self.lost = False
        self.leaving = asyncio.Event()
        self._changed = asyncio.Event()

    def change(self, state: ExecState | None = None, out: bytes = b"", err: bytes = b"") -> None:
        self.state = state or self.state
        self.bytes[StreamName.STDOUT] += out
        self.bytes[StreamName.STDERR] += err
        self._changed.set()
        self._changed = asyncio.Event()

    async def status(self) -> ExecStatus:
        did_start = self.state not in (ExecState.QUEUED, ExecState.REJECTED)
        empty = StreamStatus(0, 0, False)
        return ExecStatus(
            id="ex-1",
            session="s",
            state=self.state,
            exit_code=0 if self.state is ExecState.EXITED else None,
            signal=None,
            timed_out=False,
            reason=None,
            host="local",
            cpu=1,
            queue_s=0.5,
            run_s=1.0 if did_start else None,
            cpu_s=None,
            max_rss_mb=None,
            labels={},
            stdout=empty,
            stderr=empty,
            queue_position=self.position,
        )

    async def moved_on(self, state: ExecState, timeout_s: float) -> None:
        if self.state is state:
            await self._wait(timeout_s)

    async def left(self) -> None:
        await self.leaving.wait()

    async def read(self, stream: StreamName, offset: int, limit: int, wait_s: float) -> Chunk:
        self.reads.append((stream, offset))
        data = self.bytes[stream]
        while len(data) <= offset and not self.state.is_final:
            if self.lost:
                raise host_lost("local")
            await self._wait(wait_s)
            data = self.bytes[stream]
        piece = data[offset : offset + limit]
        end = offset + len(piece)
        return Chunk(piece, end, self.state.is_final and end >= len(data), len(data), len(data))

    async def _wait(self, timeout_s: float) -> None:
        with contextlib.suppress(TimeoutError):
            async with asyncio.timeout(timeout_s):
                await self._changed.wait()


@contextlib.asynccontextmanager
async def following(fake: FakeExec, position: Position | None = None, **seconds: float) -> AsyncIterator[Any]:
    events = ExecEvents(fake, position or Position(), **{"coalesce_s": 0.0, **seconds})
    try:
        yield events
    finally:
        await events.close()


async def whole(fake: FakeExec, position: Position | None = None) -> list[StreamEvent]:
    async with following(fake, position) as stream:
        return [event async for event in stream.events()]


def output_of(events: list[StreamEvent], stream: StreamName) -> bytes:
    found = [event for event in events if isinstance(event, OutputEvent) and event.stream == stream]
    return b"".join(base64.b64decode(e.b64) if e.text is None else e.text.encode() for e in found)


async def until(
    kind: type[StreamEvent], events: AsyncIterator[StreamEvent], count: int
) -> AsyncIterator[Any]:
    while count:
        if isinstance(event := await anext(events), kind):
            count -= 1
            yield event


async def test_a_command_from_queue_to_exit() -> None:
    fake = FakeExec()
    fake.position = 2
    async with following(fake) as stream:
        events = stream.events()
        assert await anext(events) == QueuedEvent(2)
        fake.position = 0
        assert await anext(events) == QueuedEvent(0)
        fake.position = None
        fake.change(ExecState.RUNNING)
        assert await anext(events) == StartedEvent("local", 0.5)
        fake.change(out=b"hi\n")
        assert await anext(events) == OutputEvent(StreamName.STDOUT, 0, text="hi\n")
        fake.change(err=b"oops")
        assert await anext(events) == OutputEvent(StreamName.STDERR, 0, text="oops")
        fake.change(ExecState.EXITED)
        assert await anext(events) == ExitEvent(await fake.status())
        assert stream.position == Position(2, 3, 4)
        assert [event async for event in events] == []


async def test_every_id_resumes_where_it_stands() -> None:
    fake = FakeExec(ExecState.EXITED)
    fake.change(out=b"a" * (2 * CHUNK_BYTES + 5), err=b"b" * (CHUNK_BYTES + 1))
    async with following(fake) as stream:
        seen: list[tuple[Position, list[StreamEvent]]] = []
        before: list[StreamEvent] = []
        async for event in stream.events():
            before = [*before, event]
            seen.append((stream.position, before))
    for position, events in seen:
        resumed = await whole(fake, read_position(str(position)))
        for name in StreamName:
            assert output_of(events, name) + output_of(resumed, name) == fake.bytes[name]
        assert sum(isinstance(event, StartedEvent) for event in [*events, *resumed]) == 1
        assert sum(isinstance(event, ExitEvent) for event in [*events, *resumed]) == 1


async def test_what_never_ran_has_no_started() -> None:
    assert [type(event) for event in await whole(FakeExec(ExecState.REJECTED))] == [ExitEvent]


@pytest.mark.parametrize(
    ("pieces", "expected"),
    [
        ([b"ab\xe2", b"\x82\xac"], ["ab", "€"]),
        ([b"\xff\xfe"], [b"\xff\xfe"]),
        ([b"\xe2", b"\x82\xac"], [b"\xe2", b"\x82\xac"]),
    ],
)
async def test_text_where_it_is_text(pieces: list[bytes], expected: list[str | bytes]) -> None:
    """A character that is cut in two is sent whole, if its rest comes before the next look."""
    fake = FakeExec(ExecState.RUNNING)
    async with following(fake) as stream:
        events = stream.events()
        await anext(events)
        got = []
        for piece in pieces:
            fake.change(out=piece)
            event = await anext(events)
            got.append(base64.b64decode(event.b64) if event.text is None else event.text)
        assert got == expected


async def test_a_stalled_reader_makes_no_reads() -> None:
    fake = FakeExec(ExecState.RUNNING)
    fake.change(out=b"x" * (10 * CHUNK_BYTES))
    async with following(fake) as stream:
        events = stream.events()
        await anext(events)
        await anext(events)
        for _ in range(50):
            fake.change(out=b"y" * CHUNK_BYTES)
            await asyncio.sleep(0)
        assert sum(name is StreamName.STDOUT for name, _ in fake.reads) == 1


async def test_small_output_gathers() -> None:
    fake = FakeExec(ExecState.RUNNING)
    async with following(fake, coalesce_s=60.0) as stream:
        events = stream.events()
        await anext(events)
        fake.change(out=b"a")
        assert await anext(events) == OutputEvent(StreamName.STDOUT, 0, text="a")
        following_event = asyncio.get_running_loop().create_task(anext(events))
        for letter in (b"b", b"c", b"d"):
            fake.bytes[StreamName.STDOUT] += letter
            await asyncio.sleep(0)
        fake.change()
        assert await following_event == OutputEvent(StreamName.STDOUT, 1, text="bcd")


async def test_silence_is_broken_by_heartbeats() -> None:
    fake = FakeExec()
    async with following(fake, heartbeat_s=0.001) as stream:
        events = stream.events()
        assert await anext(events) == QueuedEvent(None)
        assert await anext(events) == HeartbeatEvent(ExecState.QUEUED)
        fake.change(ExecState.RUNNING)
        while isinstance(event := await anext(events), HeartbeatEvent):
            pass
        assert isinstance(event, StartedEvent)
        assert await anext(events) == HeartbeatEvent(ExecState.RUNNING)


async def test_a_lost_host_is_said_and_nothing_is_made_up() -> None:
    fake = FakeExec(ExecState.RUNNING)
    async with following(fake) as stream:
        events = stream.events()
        await anext(events)
        fake.change(out=b"part")
        await anext(events)
        fake.lost = True
        fake.change()
        lost = [event async for event in until(OutputLostEvent, events, 2)]
        assert {(event.stream, event.offset) for event in lost} == {
            (StreamName.STDOUT, 4),
            (StreamName.STDERR, 0),
        }
        fake.change(ExecState.LOST)
        last = await anext(events)
        assert (last.status.state, last.status.exit_code) == (ExecState.LOST, None)


@pytest.mark.parametrize("state", [ExecState.QUEUED, ExecState.RUNNING])
async def test_a_gateway_that_goes_ends_the_stream_without_an_exit(state: ExecState) -> None:
    fake = FakeExec(state)
    async with following(fake) as stream:
        events = stream.events()
        await anext(events)
        fake.leaving.set()
        fake.change()
        assert [event async for event in events] == []
        assert not stream.position.is_over


async def test_a_reader_that_leaves_takes_its_reads_along() -> None:
    fake = FakeExec(ExecState.RUNNING)
    tasks = len(asyncio.all_tasks())
    async with following(fake) as stream:
        events = stream.events()
        await anext(events)
        reader = asyncio.get_running_loop().create_task(anext(events))
        await asyncio.sleep(0)
        await asyncio.sleep(0)
        assert len(asyncio.all_tasks()) > tasks
        reader.cancel()
        await asyncio.wait({reader})
    assert len(asyncio.all_tasks()) == tasks


def test_frames() -> None:
    frame = encoded(QueuedEvent(1), Position(0, 0, 0))
    assert frame == b'id: 0.0.0\nevent: queued\ndata: {"position":1}\n\n'
    assert encoded(HeartbeatEvent(ExecState.RUNNING), Position()).startswith(b"event: heartbeat\n")
    event = OutputEvent(StreamName.STDOUT, 7, text="a\n\nid: 9.9.9\r\n")
    assert encoded(event, Position(1, 20, 0)).count(b"\n") == 4
    assert msgspec.json.decode(msgspec.json.encode(event), type=OutputEvent) == event


@given(st.integers(0, 2), st.integers(0, 10**18 - 1), st.integers(0, 10**18 - 1))
def test_positions_are_read_back(stage: int, stdout: int, stderr: int) -> None:
    position = Position(stage, stdout, stderr)
    assert read_position(str(position)) == position


@pytest.mark.parametrize("text", ["x", "1.2", "3.0.0", "1.-1.0", "1.2.3.4", "1.2." + "9" * 30, "1.٣.0"])
def test_foreign_ids_are_known_as_such(text: str) -> None:
    assert read_position(text) is None


def test_no_id_is_the_beginning() -> None:
    assert read_position(None) == read_position("") == Position()

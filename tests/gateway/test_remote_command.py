"""A command elsewhere as if it ran here: input, interrupts, leaving early."""

import asyncio
import contextlib
import io
from collections.abc import AsyncIterator
from signal import Signals
from typing import Any

import httpx
import pytest

from gateway.client import GatewayClient, Unreachable
from gateway.protocol import ExecRequest, ExecState, StreamName, TtyRequest
from gateway.remote_command import RemoteCommand
from tests.gateway.fake_host import FakeExec
from tests.gateway.rest_rig import Rest, open_rest, until

pytestmark = pytest.mark.slow  # real processes throughout


class FakeEnds:
    def __init__(self, *pieces: bytes) -> None:
        self.out: Any = io.BytesIO()
        self.err: Any = io.BytesIO()
        self.interrupts: asyncio.Queue[Signals] = asyncio.Queue()
        self.sizes: asyncio.Queue[tuple[int, int]] = asyncio.Queue()
        self.pieces = list(pieces)
        self.has_more = asyncio.Event()

    async def input(self) -> AsyncIterator[bytes]:
        for piece in self.pieces:
            yield piece
        if self.pieces == [b"for ever"]:
            await self.has_more.wait()

    async def next_interrupt(self) -> Signals:
        return await self.interrupts.get()

    async def next_size(self) -> tuple[int, int]:
        return await self.sizes.get()


@contextlib.asynccontextmanager
async def running(ends: FakeEnds, **fields: Any) -> AsyncIterator[tuple[Rest, "asyncio.Task[Any]"]]:
    beats = fields.pop("beats", False)
    async with (
        open_rest(sessions=()) as rest,
        GatewayClient("http://localhost", transport=httpx.ASGITransport(rest.app)) as client,
    ):
        command = RemoteCommand(client, ends).run("cli", ExecRequest(command="make", **fields), beats=beats)
        whole = asyncio.get_running_loop().create_task(command)
        yield rest, whole
        await asyncio.wait({whole})


async def followed(rest: Rest) -> FakeExec:
    """The command, once the client knows of it."""
    shell = await rest.shell()
    await until(lambda: "read" in rest.host.calls)
    return shell


async def test_output_input_and_exit_code() -> None:
    ends = FakeEnds(b"one ", b"two")
    async with running(ends, stdin_open=True) as (rest, whole):
        shell = await rest.shell()
        await until(lambda: shell.stdin == b"one two")
        rest.host.write(shell.order.exec_id, b"out")
        rest.host.write(shell.order.exec_id, b"err", StreamName.STDERR)
        rest.host.finish(shell.order.exec_id, returncode=3)
        assert (await whole).exit_code == 3
        assert (ends.out.getvalue(), ends.err.getvalue()) == (b"out", b"err")
        assert "write_stdin" in rest.host.calls


async def test_input_that_never_ends_holds_nothing_up() -> None:
    async with running(FakeEnds(b"for ever"), stdin_open=True) as (rest, whole):
        shell = await rest.shell()
        await until(lambda: shell.stdin == b"for ever")
        rest.host.finish(shell.order.exec_id)
        assert (await whole).exit_code == 0


async def test_the_first_interrupt_is_the_commands_the_second_ends_it() -> None:
    ends = FakeEnds()
    async with running(ends) as (rest, whole):
        shell = await followed(rest)
        ends.interrupts.put_nowait(Signals.SIGINT)
        await until(lambda: shell.signals == [("SIGINT", "group")])
        assert rest.host.stops == []
        ends.interrupts.put_nowait(Signals.SIGINT)
        assert (await whole).state is ExecState.CANCELLED


@pytest.mark.parametrize("number", [Signals.SIGTERM, Signals.SIGHUP])
async def test_a_request_to_end_ends_it(number: Signals) -> None:
    ends = FakeEnds()
    async with running(ends) as (rest, whole):
        shell = await followed(rest)
        ends.interrupts.put_nowait(number)
        assert (await whole).exit_code == 130
        assert shell.signals == []


async def test_an_interrupt_before_it_began() -> None:
    ends = FakeEnds()
    ends.interrupts.put_nowait(Signals.SIGINT)
    async with running(ends) as (rest, whole):
        with pytest.raises(asyncio.CancelledError):
            await whole
        await until(lambda: not rest.gateway.execs.active_sessions())


async def test_leaving_early_cancels() -> None:
    async with running(FakeEnds()) as (rest, whole):
        await rest.shell()
        whole.cancel()
        with pytest.raises(asyncio.CancelledError):
            await whole
        await until(lambda: not rest.host.running())


async def test_a_reader_that_has_left_cancels() -> None:
    class Closed(io.BytesIO):
        def write(self, data: Any) -> int:
            raise BrokenPipeError

    ends = FakeEnds()
    ends.out = Closed()
    async with running(ends) as (rest, whole):
        shell = await rest.shell()
        rest.host.write(shell.order.exec_id, b"x")
        with pytest.raises(BrokenPipeError):
            await whole
        assert rest.host.stops != []


async def test_sizes_are_passed_on() -> None:
    ends = FakeEnds()
    async with running(ends, tty=TtyRequest(80, 24)) as (rest, whole):
        shell = await rest.shell()
        ends.sizes.put_nowait((132, 50))
        await until(lambda: [size.cols for size in shell.sizes] == [132])
        rest.host.finish(shell.order.exec_id)
        await whole


async def test_heartbeats_where_they_are_asked_for() -> None:
    for beats in (True, False):
        async with running(FakeEnds(), beats=beats) as (rest, whole):
            shell = await rest.shell()
            if beats:
                await until(lambda: len(rest.app.state.heartbeats) == 1)
            rest.host.finish(shell.order.exec_id)
            await whole
            assert len(rest.app.state.heartbeats) == int(beats)


async def test_a_gateway_that_is_not_there() -> None:
    async with GatewayClient("http://127.0.0.1:1") as client:
        with pytest.raises(Unreachable):
            await RemoteCommand(client, FakeEnds()).run("s", ExecRequest(command="make"))

"""The forwarder passes bytes on, and its faults are those of a network: silence, delay, an end."""

import asyncio
import contextlib
from collections.abc import AsyncIterator, Callable
from contextlib import asynccontextmanager

import pytest

from gateway.tasks import Tasks
from tests.scale.wires import Address, Forwarder, Wire

HANG_S = 10.0


@asynccontextmanager
async def forwarding(wire: Wire, *dead: Address) -> AsyncIterator[Forwarder]:
    """To a program that shouts back; ``dead`` are tried first."""
    tasks, shouting = Tasks(), set[asyncio.Task[None]]()

    async def shout(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        me = asyncio.current_task()
        assert me is not None
        shouting.add(me)
        with contextlib.suppress(ConnectionResetError):
            while line := await reader.readline():
                writer.write(line.upper())
        await _close(writer)

    server = await asyncio.start_server(shout, "127.0.0.1", 0)
    alive = server.sockets[0].getsockname()
    forwarder = Forwarder(tasks, lambda: [*dead, alive], lambda _: wire)
    await forwarder.up()
    try:
        yield forwarder
    finally:
        await forwarder.close()
        server.close()
        if shouting:
            await asyncio.wait(shouting)
        await tasks.close()


@asynccontextmanager
async def connected(forwarder: Forwarder) -> AsyncIterator[tuple[asyncio.StreamReader, asyncio.StreamWriter]]:
    reader, writer = await asyncio.open_connection("127.0.0.1", forwarder.port)
    try:
        yield reader, writer
    finally:
        await _close(writer)


async def _close(writer: asyncio.StreamWriter) -> None:
    writer.close()
    with contextlib.suppress(OSError):
        await writer.wait_closed()


async def answer(reader: asyncio.StreamReader) -> bytes:
    async with asyncio.timeout(HANG_S):
        return await reader.readline()


async def test_bytes_pass_both_ways_to_the_first_target_that_answers() -> None:
    dead = (("127.0.0.1", 1), "/no/socket/here")
    async with forwarding(Wire(), *dead) as forwarder, connected(forwarder) as (reader, writer):
        writer.write(b"a\nb\n")
        assert [await answer(reader), await answer(reader)] == [b"A\n", b"B\n"]


async def test_a_cut_wire_is_silent_and_a_mended_one_delivers_what_waited() -> None:
    wire = Wire()
    async with forwarding(wire) as forwarder, connected(forwarder) as (reader, writer):
        writer.write(b"a\n")
        assert await answer(reader) == b"A\n"
        wire.cut()
        writer.write(b"b\n")
        async with connected(forwarder) as (late_reader, late_writer):
            late_writer.write(b"c\n")
            asking = asyncio.gather(answer(reader), answer(late_reader))
            done, _ = await asyncio.wait((asking,), timeout=0.1)
            assert not done
            wire.mend()
            assert [*await asking] == [b"B\n", b"C\n"]


async def test_a_delay_keeps_the_order() -> None:
    wire, loop = Wire(), asyncio.get_running_loop()
    wire.delay_s = 0.05
    async with forwarding(wire) as forwarder, connected(forwarder) as (reader, writer):
        began_s = loop.time()
        writer.write(b"a\n")
        await asyncio.sleep(0.01)
        writer.write(b"b\n")
        assert [await answer(reader), await answer(reader)] == [b"A\n", b"B\n"]
        assert loop.time() - began_s >= 2 * wire.delay_s
        wire.delay_s = 0.0
        writer.write(b"c\n")
        assert await answer(reader) == b"C\n"


async def test_what_is_down_ends_and_refuses_until_it_is_up_at_the_same_port() -> None:
    async with forwarding(Wire()) as forwarder:
        port = forwarder.port
        async with connected(forwarder) as (reader, writer):
            writer.write(b"a\n")
            assert await answer(reader) == b"A\n"
            await forwarder.down()
            assert await answer(reader) == b""
        with pytest.raises(ConnectionRefusedError):
            await asyncio.open_connection("127.0.0.1", port)
        await forwarder.up()
        assert forwarder.port == port
        async with connected(forwarder) as (reader, writer):
            writer.write(b"a\n")
            assert await answer(reader) == b"A\n"


async def test_without_a_target_the_connection_ends() -> None:
    async with forwarding(Wire()) as forwarder:
        forwarder.targets = lambda: [("127.0.0.1", 1)]
        async with connected(forwarder) as (reader, _):
            assert await answer(reader) == b""
        assert forwarder.refused == 1


async def until(is_so: Callable[[], bool]) -> None:
    async with asyncio.timeout(HANG_S):
        while not is_so():  # noqa: ASYNC110 - a forwarder tells nobody
            await asyncio.sleep(0)


@pytest.mark.parametrize("is_reset", [False, True])
async def test_both_ends_are_known_until_both_are_gone(is_reset: bool) -> None:
    """Over a slow wire the program learns of the end later; the forwarder waits for that."""
    wire, loop = Wire(), asyncio.get_running_loop()
    wire.delay_s = 0.05
    async with forwarding(wire) as forwarder:
        began_s = loop.time()
        _, writer = await asyncio.open_connection("127.0.0.1", forwarder.port)
        writer.transport.abort() if is_reset else writer.close()
        await until(lambda: forwarder.connections == 1)
        await until(lambda: not forwarder.open)
        assert loop.time() - began_s >= wire.delay_s


async def test_what_is_closed_while_its_wire_is_cut_is_not_waited_for() -> None:
    wire = Wire()
    async with forwarding(wire) as forwarder:
        wire.cut()
        async with connected(forwarder):
            await until(lambda: bool(forwarder.open))
            async with asyncio.timeout(HANG_S):
                await forwarder.close()
            wire.mend()
        assert forwarder.connections == 1

"""One request as the relay sees it, against a connection played by hand."""

import asyncio
from typing import Any

import pytest

from marsproxy.client import BodyTooLarge, BodyTooSlow, Client, ClientGone
from marsproxy.tasks import TaskOwner
from tests.marsproxy.asgi import FakeConnection


def client_of(connection: FakeConnection) -> Client:
    return Client(connection.scope, connection.receive, connection.send)


async def test_a_body_is_put_together() -> None:
    """From its pieces."""
    client = client_of(FakeConnection().sends(b"ab", b"", b"cd"))
    assert await client.read_body(4, 1.0) == b"abcd"


async def test_an_announced_length_over_the_bound_is_not_read() -> None:
    """Nothing had to arrive."""
    with pytest.raises(BodyTooLarge):
        await client_of(FakeConnection(content_length="5")).read_body(4, 1.0)


async def test_a_body_that_grows_over_the_bound() -> None:
    """As soon as it does."""
    connection = FakeConnection().sends(b"abc", b"de", b"f")
    with pytest.raises(BodyTooLarge):
        await client_of(connection).read_body(4, 1.0)
    assert connection.inbox.qsize() == 1


async def test_the_time_for_a_body_is_for_all_of_it() -> None:
    """However often a piece comes."""
    connection = FakeConnection()

    async def trickle() -> None:
        while True:
            connection.sends(b".", is_whole=False)
            await asyncio.sleep(0.01)

    async with asyncio.timeout(5), asyncio.TaskGroup() as tasks:
        trickling = tasks.create_task(trickle())
        with pytest.raises(BodyTooSlow):
            await client_of(connection).read_body(1 << 20, 0.1)
        trickling.cancel()


async def test_the_readers_own_time_does_not_count() -> None:
    """A backend that reads slowly is not the client's fault."""
    client = client_of(FakeConnection().sends(b"a", b"b", b"c"))
    parts = []
    async for part in client.stream_body(0.05):
        parts.append(part)
        await asyncio.sleep(0.04)
    assert parts == [b"a", b"b", b"c"]


async def test_a_client_that_leaves_in_its_body() -> None:
    """Is gone."""
    connection = FakeConnection().sends(b"a", is_whole=False)
    connection.disconnects()
    with pytest.raises(ClientGone):
        await client_of(connection).read_body(10, 1.0)


async def test_watched_interrupts_what_is_waited_for() -> None:
    """And leaves no watcher."""
    connection, owner = FakeConnection(), TaskOwner()
    client = client_of(connection)

    async def wait_for_ever() -> None:
        async with asyncio.timeout(5), client.watched(owner, 60.0):
            connection.disconnects()
            await asyncio.Event().wait()

    with pytest.raises(ClientGone):
        await wait_for_ever()
    await asyncio.sleep(0.01)
    assert len(owner) == 0


async def test_a_client_that_does_not_read_is_given_up() -> None:
    """One that reads slowly is not: only a single piece may not take for ever."""
    connection, owner = FakeConnection(), TaskOwner()
    client = client_of(connection)

    async def answer() -> None:
        async with asyncio.timeout(5), client.watched(owner, 0.05):
            await client.start(200, [])
            for _ in range(10):
                await client.write(b"x")
                await asyncio.sleep(0.01)
            connection.blocks = "write"
            await client.write(b"y")

    with pytest.raises(ClientGone):
        await answer()
    assert connection.body == b"xxxxxxxxxxy"


async def test_watched_is_transparent_to_other_failures() -> None:
    """Timeouts of the block's own, and a cancellation from outside."""
    owner = TaskOwner()
    for failure in (TimeoutError, asyncio.CancelledError, KeyError):
        with pytest.raises(failure):
            async with client_of(FakeConnection()).watched(owner, 60.0):
                raise failure
    await asyncio.sleep(0.01)
    assert len(owner) == 0


async def test_a_disconnect_after_the_last_byte_is_none() -> None:
    """The server reports one whenever an answer is complete."""
    connection, owner = FakeConnection(), TaskOwner()
    client = client_of(connection)
    async with client.watched(owner, 60.0):
        await client.start(200, [])
        await client.finish()
        connection.disconnects()
        await asyncio.sleep(0.01)
    assert connection.is_finished


async def test_a_streamed_body_is_not_taken_by_the_watcher() -> None:
    """Which takes over where the reader stops."""
    connection, owner = FakeConnection(), TaskOwner()
    client = client_of(connection)

    async def upload() -> None:
        parts = client.stream_body(1.0)
        async with asyncio.timeout(5), client.watched(owner, 60.0):
            await asyncio.sleep(0.01)
            connection.sends(b"a", b"b")
            assert [part async for part in parts] == [b"a", b"b"]
            connection.disconnects()
            await asyncio.Event().wait()

    with pytest.raises(ClientGone):
        await upload()


async def test_signs_of_life_open_the_stream_once() -> None:
    """The backend's head can then only be dropped."""
    connection = FakeConnection()
    client = client_of(connection)
    await client.show_life([(b"a", b"b")], b": held\n\n")
    await client.show_life([(b"a", b"b")], b": held\n\n")
    assert (client.is_answering, client.is_only_held) == (True, True)
    await client.start(418, [])
    await client.finish(b"end")
    assert (connection.status, connection.body) == (200, b": held\n\n: held\n\nend")
    assert client.is_only_held is False


@pytest.mark.parametrize("status", [204, 304])
async def test_a_length_without_a_body_is_left_out(status: int) -> None:
    """It describes what another request would get."""
    connection = FakeConnection()
    await client_of(connection).start(status, [(b"content-length", b"12"), (b"etag", b"x")])
    assert connection.headers == {b"etag": b"x"}


async def test_what_is_left_of_a_body_is_discarded_for_a_while() -> None:
    """To its end, or until the time is over."""
    connection = FakeConnection().sends(b"a", b"b")
    await client_of(connection).discard_body(5.0)
    assert connection.inbox.empty()
    async with asyncio.timeout(5):
        await client_of(FakeConnection()).discard_body(0.01)


async def test_cutting_ends_without_an_end() -> None:
    """And is not taken for the client's going."""
    connection = FakeConnection()
    client = client_of(connection)
    await client.start(200, [])
    client.cut()
    assert (connection.is_cut, connection.is_finished) == (True, False)


@pytest.mark.parametrize(
    ("scope", "path"),
    [({"raw_path": b"/a%2Fb"}, "/a%2Fb"), ({"raw_path": None, "path": "/plain"}, "/plain")],
)
def test_the_path_stays_as_it_came(scope: dict[str, Any], path: str) -> None:
    """Where the server tells it."""
    connection = FakeConnection()
    assert Client(connection.scope | scope, connection.receive, connection.send).path == path

"""The typed client: each of its methods against a gateway, and what it sends again."""

import asyncio
import contextlib
from collections.abc import AsyncIterator, Callable

import httpx
import pytest

from gateway.client import GatewayClient, GatewayError, Refused, Unreachable
from gateway.protocol import ExecRequest, ExecState, LeaseRequest, LeaseState, Scope, StreamName
from tests.gateway.rest_rig import Rest, open_rest, until

pytestmark = pytest.mark.slow

MAKE = ExecRequest(command="make", stdin_open=True)


@contextlib.asynccontextmanager
async def gateway() -> AsyncIterator[tuple[GatewayClient, Rest]]:
    async with open_rest(slots=1) as rest:
        transport = httpx.ASGITransport(rest.app)
        async with GatewayClient("http://localhost", transport=transport) as client:
            yield client, rest


async def test_a_command_from_start_to_end() -> None:
    async with gateway() as (client, rest):
        started = await client.start("s", MAKE, key="k")
        assert (await client.start("s", MAKE, key="k")).id == started.id
        await until(lambda: started.id in rest.host.execs)
        assert await client.write_stdin(started.id, b"abc", 0) == 3
        assert await client.write_stdin(started.id, b"", 3, eof=True) == 3
        assert await client.signal(started.id, "SIGINT", Scope.TREE)
        rest.host.write(started.id, b"o" * 70_000)
        rest.host.write(started.id, b"err", StreamName.STDERR)
        assert (await client.read_output(started.id, offset=69_999)).data == b"o"
        rest.host.finish(started.id, returncode=2)
        ended = await client.wait(started.id)
        assert (ended.state, ended.exit_code) == (ExecState.EXITED, 2)
        assert b"".join([piece async for piece in client.output(started.id)]) == b"o" * 70_000
        assert [piece async for piece in client.output(started.id, StreamName.STDERR, 1)] == [b"rr"]
        assert (rest.host.starts, rest.host.execs[started.id].stdin) == ([started.id], b"abc")


async def test_cancel_and_heartbeat() -> None:
    async with gateway() as (client, _):
        first = await client.start("s", MAKE)
        await client.cancel(first.id)
        assert (await client.wait(first.id)).state is ExecState.CANCELLED
        second = await client.start("s", MAKE)
        await client.heartbeat(second.id, 0.01)
        assert (await client.wait(second.id)).state is ExecState.CANCELLED


async def test_sessions() -> None:
    async with gateway() as (client, _):
        assert await client.session("new") is None
        await client.ensure_session("new")
        await client.ensure_session("new")
        assert await client.session("new") is not None
        await client.end_session("new")
        assert await client.session("new") is None
        with pytest.raises(Refused) as refused:
            await client.run("new", MAKE)
        assert (refused.value.status, refused.value.code) == (404, "session_not_found")


async def test_files_and_archives() -> None:
    async def pieces() -> AsyncIterator[bytes]:
        yield b"ab"
        yield b"cd"

    async with gateway() as (client, rest):
        assert (await client.write_file("s", "f", pieces(), "755")).size_bytes == 4
        assert await client.read_file("s", "f") == b"abcd"
        assert b"".join([piece async for piece in client.file("s", "f")]) == b"abcd"
        await client.remove_file("s", "f")
        with pytest.raises(Refused, match="no such file"):
            await client.read_file("s", "f")
        assert (await client.unpack("s", b"tar", "src")).entries == 7
        assert b"".join([piece async for piece in client.pack("s", "src")]) == b"tar"
        assert rest.host.modes == {"f": 0o755}


async def test_a_lease_is_held_as_long_as_it_takes() -> None:
    async with gateway() as (client, rest):
        request = LeaseRequest(session="s", ttl_s=0.2)
        async with client.lease(request) as lease:
            assert lease.state is LeaseState.HELD
            await asyncio.sleep(0.5)
            assert (await client.hosts())[0].running == 1
            with pytest.raises(GatewayError):
                async with client.lease(LeaseRequest(session="other", queue_timeout_s=0.01)):
                    pass
        assert (await client.hosts())[0].running == 0
        assert rest.host.starts == []


async def test_hosts_and_draining() -> None:
    async with gateway() as (client, _):
        assert [host.name for host in await client.hosts()] == ["here"]
        assert (await client.drain("here")).is_draining
        assert not (await client.drain("here", is_draining=False)).is_draining


Answer = httpx.Response | Exception


def scripted(answers: list[Answer], asked: list[httpx.Request]) -> httpx.MockTransport:
    def answer(request: httpx.Request) -> httpx.Response:
        asked.append(request)
        found = answers.pop(0)
        if isinstance(found, Exception):
            raise found
        return found

    return httpx.MockTransport(answer)


HOSTS = httpx.Response(200, content=b'{"hosts":[]}')


def refusal(status: int, retry_after: str = "0") -> httpx.Response:
    body = b'{"error":{"message":"no","type":"t","param":null,"code":"c"}}'
    return httpx.Response(status, headers={"Retry-After": retry_after}, content=body)


def broken() -> httpx.ConnectError:
    return httpx.ConnectError("gone")


Act = Callable[[GatewayClient], object]


async def signal(client: GatewayClient) -> object:
    return await client.signal("ex-1", "SIGINT")


async def hosts(client: GatewayClient) -> object:
    return await client.hosts()


async def start(client: GatewayClient) -> object:
    return await client.start("s", MAKE)


@pytest.mark.parametrize(
    ("act", "answers", "tries", "error"),
    [
        (hosts, [HOSTS, broken(), refusal(503), refusal(429), HOSTS], 4, None),
        (hosts, [HOSTS, refusal(404)], 1, Refused),
        (hosts, [HOSTS, httpx.Response(502, content=b"<html>")], 1, Unreachable),
        (hosts, [HOSTS, refusal(503, "3600")], 1, Refused),
        (hosts, [HOSTS, refusal(503, "Wed, 21 Oct 2026 07:28:00 GMT"), HOSTS], 2, None),
        (signal, [HOSTS, broken()], 1, Unreachable),
        (signal, [HOSTS, refusal(503)], 1, Refused),
        (signal, [HOSTS, refusal(429), httpx.Response(200, content=b'{"was_sent":true}')], 2, None),
        (start, [HOSTS, broken(), refusal(400)], 2, Refused),
    ],
)
async def test_what_is_sent_again(
    act: Act, answers: list[Answer], tries: int, error: type[Exception] | None
) -> None:
    asked: list[httpx.Request] = []
    async with GatewayClient("http://gateway", transport=scripted(answers, asked)) as client:
        await client.hosts()
        with pytest.raises(error) if error is not None else contextlib.nullcontext():
            await act(client)  # type: ignore[misc]
    assert len(asked) == tries + 1
    assert len({request.headers.get("Idempotency-Key") for request in asked[1:]}) == 1, (
        "one key for all tries"
    )
    assert answers == []


async def test_one_that_never_answered_is_given_up_at_once() -> None:
    asked: list[httpx.Request] = []
    async with GatewayClient("http://gateway", transport=scripted([broken()], asked)) as client:
        with pytest.raises(Unreachable, match="http://gateway does not answer"):
            await client.hosts()
    assert len(asked) == 1


async def test_the_token_is_sent() -> None:
    asked: list[httpx.Request] = []
    async with GatewayClient("http://gateway", "secret", transport=scripted([HOSTS], asked)) as client:
        await client.hosts()
    assert asked[0].headers["Authorization"] == "Bearer secret"

"""Terminals over WebSockets, on a real socket."""

import contextlib
import json
from collections.abc import AsyncIterator
from typing import Any

import httpx
import pytest
from websockets.asyncio.client import ClientConnection, connect
from websockets.exceptions import ConnectionClosed, InvalidStatus

from gateway.stream_protocol import CloseCode
from tests.gateway.rest_rig import Rest, on_a_socket, open_rest, until

pytestmark = pytest.mark.slow  # real processes throughout

TOKENS = {"alice": "alice-token-0123456789", "bob": "bob-token-0123456789"}


@contextlib.asynccontextmanager
async def terminals(**options: Any) -> AsyncIterator[tuple[Rest, str]]:
    async with open_rest(**options) as rest, on_a_socket(rest.app) as address:
        yield rest, f"ws://{address}/v1/sessions/s/pty"


async def attached(socket: ClientConnection) -> dict[str, Any]:
    while "attached" not in (news := json.loads(await socket.recv())):
        assert set(news) == {"queued"}
    found: dict[str, Any] = news["attached"]
    return found


async def closed(socket: ClientConnection) -> tuple[int, list[Any]]:
    """Why, and what came before."""
    seen: list[Any] = []
    with contextlib.suppress(ConnectionClosed):
        while True:
            seen.append(await socket.recv())
    assert socket.close_code is not None
    return socket.close_code, seen


async def test_bytes_and_control_frames() -> None:
    async with terminals() as (rest, url), connect(f"{url}?cols=120&rows=40") as socket:
        shell = await rest.shell()
        assert shell.order.tty is not None
        assert shell.order.keeps_stdin
        assert await attached(socket) == {"exec": shell.order.exec_id, "offset": 0}
        rest.host.write(shell.order.exec_id, b"$ \xff")
        assert await socket.recv() == b"$ \xff"
        await socket.send(b"ls")
        await socket.send(b"\r")
        await until(lambda: shell.stdin == b"ls\r")
        await socket.send('{"resize": {"cols": 100, "rows": 30}}')
        await socket.send('{"signal": "SIGHUP"}')
        await until(lambda: shell.signals == [("SIGHUP", "tree")])
        assert [(size.cols, size.rows) for size in shell.sizes] == [(120, 40), (100, 30)]
        rest.host.finish(shell.order.exec_id, returncode=3)
        code, seen = await closed(socket)
        assert (code, json.loads(seen[-1])["exit"]["exit_code"]) == (CloseCode.ENDED, 3)


async def test_what_is_typed_early_finds_the_clients_size() -> None:
    async with terminals() as (rest, url), connect(f"{url}?cols=97&rows=31") as socket:
        await socket.send(b"stty size\r")
        shell = await rest.shell()
        sizes_at_input: list[int] = []

        def typed() -> bool:
            if shell.stdin and not sizes_at_input:
                sizes_at_input.append(len(shell.sizes))
            return bool(shell.stdin)

        await until(typed)
        assert sizes_at_input == [1]


async def test_coming_back_goes_on_with_the_same_shell() -> None:
    async with terminals() as (rest, url):
        async with connect(url) as socket:
            shell = await rest.shell()
            await attached(socket)
            rest.host.write(shell.order.exec_id, b"one two")
            assert await socket.recv() == b"one two"
            await socket.send(b"abc")
            await until(lambda: shell.stdin == b"abc")
        rest.host.write(shell.order.exec_id, b" three")
        async with connect(f"{url}?since=4") as socket:
            assert await attached(socket) == {"exec": shell.order.exec_id, "offset": 4}
            assert await socket.recv() == b"two three"
            await socket.send(b"def")
            await until(lambda: shell.stdin == b"abcdef")
        assert rest.host.starts == [shell.order.exec_id]


async def test_a_new_shell_follows_one_that_has_ended() -> None:
    async with terminals() as (rest, url):
        async with connect(url) as socket:
            first = await rest.shell()
            await attached(socket)
            rest.host.write(first.order.exec_id, b"x" * 100)
            rest.host.finish(first.order.exec_id)
            await closed(socket)
        async with connect(f"{url}?since=100") as socket:
            second = await attached(socket)
        assert second["exec"] != first.order.exec_id
        assert second["offset"] == 0, "an offset of the shell before means nothing in this one"


async def test_one_holder_unless_it_is_taken_over() -> None:
    async with terminals() as (rest, url), connect(url) as first:
        shell = (await attached(first))["exec"]
        async with connect(url) as second:
            assert await closed(second) == (CloseCode.HELD, [])
        async with connect(f"{url}?takeover=1") as third:
            assert (await attached(third))["exec"] == shell
            assert (await closed(first))[0] == CloseCode.TAKEN_OVER
            async with connect(url) as fourth:
                assert (await closed(fourth))[0] == CloseCode.HELD
            rest.host.write(shell, b"still here")
            assert await third.recv() == b"still here"
        async with connect(url) as fifth:
            assert (await attached(fifth))["exec"] == shell


async def test_a_queued_shell_says_where_it_stands() -> None:
    async with terminals(slots=0.05, sessions=("s", "other")) as (rest, url):
        holder = await rest.running("other", cpu=0.05)
        async with connect(url) as socket:
            assert json.loads(await socket.recv()) == {"queued": {"position": 0}}
            rest.host.finish(holder)
            await attached(socket)


async def test_wrong_frames_are_explained_and_change_nothing() -> None:
    async with terminals() as (rest, url), connect(url) as socket:
        shell = await rest.shell()
        await attached(socket)
        for frame in ("{", "[]", "{}", '{"resize": {"cols": 0}}', '{"signal": "SIGSEGV"}', "[" * 5000):
            await socket.send(frame)
            assert json.loads(await socket.recv())["error"]["code"] == "invalid_value"
        await socket.send(b"still")
        await until(lambda: shell.stdin == b"still")


async def test_a_full_queue_is_said() -> None:
    async with terminals(slots=1, queue_limit=0, sessions=("s", "other")) as (rest, url):
        await rest.running("other")
        async with connect(url) as socket:
            code, seen = await closed(socket)
        assert (code, json.loads(seen[-1])["error"]["code"]) == (CloseCode.LOST, "queue_full")


async def test_a_lost_host_closes_it() -> None:
    async with terminals() as (rest, url), connect(url) as socket:
        await attached(socket)
        rest.host.lose()
        code, _ = await closed(socket)
        assert code == CloseCode.LOST


@pytest.mark.parametrize(
    ("query", "headers", "status"),
    [
        ("", {"Origin": "http://evil.example"}, 403),
        ("", {"Origin": "null"}, 403),
        ("?since=-1", {}, 400),
        ("?takeover=yes", {}, 400),
        ("?cols=0", {}, 400),
        ("?shell=/bin/bash", {}, 400),
        ("?colour=red", {}, 400),
    ],
)
async def test_who_and_what_is_refused(query: str, headers: dict[str, str], status: int) -> None:
    async with terminals() as (rest, url):
        with pytest.raises(InvalidStatus) as refused:
            async with connect(url + query, additional_headers=headers):
                pass
        assert refused.value.response.status_code == status
        assert b"message" in refused.value.response.body
        assert rest.host.execs == {}


async def test_a_page_of_our_own_may() -> None:
    async with terminals() as (_, url), connect(url, origin=f"http://{url.split('/')[2]}") as socket:
        await attached(socket)


async def test_tokens_by_header_or_protocol() -> None:
    async with terminals(tokens=TOKENS, token=TOKENS["alice"]) as (_, url):
        with pytest.raises(InvalidStatus) as refused:
            async with connect(url):
                pass
        assert refused.value.response.status_code == 401
        async with connect(url, additional_headers={"Authorization": f"Bearer {TOKENS['alice']}"}) as socket:
            await attached(socket)
        protocols: Any = ["mars.pty", f"bearer.{TOKENS['alice']}"]
        async with connect(url, subprotocols=protocols) as socket:
            assert socket.subprotocol == "mars.pty"
            await attached(socket)
        with pytest.raises(InvalidStatus) as refused:
            async with connect(url, subprotocols=[protocols[0], f"bearer.{TOKENS['bob']}"]):
                pass
        assert refused.value.response.status_code == 404, "the session is another tenant's"


async def test_without_upgrade_it_says_so() -> None:
    async with terminals() as (_, url), httpx.AsyncClient() as http:
        response = await http.get(url.replace("ws:", "http:"))
        assert (response.status_code, response.json()["error"]["code"]) == (426, "upgrade_required")

"""What clients get wrong, or send on purpose: a clear error or a pass-through, and nothing left behind."""

import asyncio
import json
import logging
from collections.abc import AsyncIterator, Iterator
from contextlib import asynccontextmanager
from dataclasses import dataclass
from typing import Any

import httpx
import pytest

from marsproxy.app import MAX_OWN_BODY_BYTES
from marsproxy.config import Backend, Listen
from tests.integration import faulty_backend as faulty
from tests.integration.faulty_backend import Exchange, FaultyBackend
from tests.integration.running import (
    PROMPT,
    RunningProxy,
    ask,
    assert_logs_are_clean,
    chat,
    client_of,
    running_proxy,
)

CHAT = "/v1/chat/completions"
JSON = {"content-type": "application/json"}
KIB, MIB = 1 << 10, 1 << 20


@pytest.fixture(autouse=True)
def clean_logs(caplog: pytest.LogCaptureFixture) -> Iterator[None]:
    caplog.set_level(logging.INFO)
    yield
    assert_logs_are_clean(caplog)


@dataclass
class Rig:
    proxy: RunningProxy
    backend: FaultyBackend
    client: httpx.AsyncClient
    bodies: list[bytes]
    """As the backend got them."""


@asynccontextmanager
async def rigged(**limits: Any) -> AsyncIterator[Rig]:
    """A proxy with these limits; at the end it must still serve, and nothing may be left."""
    bodies: list[bytes] = []

    async def keeps(exchange: Exchange) -> None:
        bodies.append(exchange.body)
        await faulty.answers_well(exchange)

    async with (
        faulty.faulty_backend(keeps) as backend,
        running_proxy(backend.url, backend=Backend(kv_tokens=10**9), listen=Listen(**limits)) as proxy,
        client_of(proxy.url) as client,
    ):
        yield Rig(proxy, backend, client, bodies)
        await proxy.until_nothing_is_left()
        assert (await ask(client, "POST", CHAT, json=chat())).body == faulty.UNARY


@dataclass
class RawClient:
    reader: asyncio.StreamReader
    writer: asyncio.StreamWriter

    async def send(self, *parts: bytes) -> None:
        for part in parts:
            self.writer.write(part)
            await self.writer.drain()

    async def answer(self) -> tuple[int, dict[str, str], bytes]:
        """The next one on the connection."""
        async with asyncio.timeout(10):
            head = (await self.reader.readuntil(b"\r\n\r\n")).decode("latin-1").split("\r\n")
            headers = dict(line.lower().split(": ", 1) for line in head[1:] if line)
            body = await self.reader.readexactly(int(headers["content-length"]))
        return int(head[0].split()[1]), headers, body

    async def refusal(self) -> tuple[int, str]:
        """Status and code of an answer of ours."""
        status, headers, body = await self.answer()
        code = json.loads(body)["error"]["code"]
        assert headers["x-mars-reason"] == code
        return status, code

    async def rest(self) -> bytes:
        async with asyncio.timeout(10):
            return await self.reader.read()


@asynccontextmanager
async def raw_client(rig: Rig) -> AsyncIterator[RawClient]:
    host, port = rig.proxy.url.removeprefix("http://").split(":")
    reader, writer = await asyncio.open_connection(host, int(port))
    try:
        yield RawClient(reader, writer)
    finally:
        writer.close()


def post(path: str, body: bytes, *headers: bytes, length: int | None = None) -> bytes:
    size = len(body) if length is None else length
    lines = [b"POST " + path.encode() + b" HTTP/1.1", b"host: h", b"content-length: %d" % size, *headers]
    return b"\r\n".join([*lines, b"", body])


# -- bodies ---------------------------------------------------------------------------------------

MESSAGE = {"role": "user", "content": PROMPT}
BODIES: dict[str, bytes] = {
    "empty": b"",
    "truncated": json.dumps(chat()).encode()[:-5],
    "not UTF-8": b'{"messages": [{"role": "user", "content": "\xff\xfe\x80"}]}',
    "UTF-16": json.dumps(chat()).encode("utf-16"),
    "BOM": b"\xef\xbb\xbf" + json.dumps(chat()).encode(),
    "lone surrogate": b'{"messages": [{"role": "user", "content": "\\ud800"}]}',
    "NUL": b'{"messages": [{"role": "user", "content": "\\u0000\x00"}]}',
    "deep": b'{"messages": ' + b"[" * 100_000 + b"]" * 100_000 + b"}",
    "deep message": b'{"messages": [{"role": "user", "content": %s}]}' % (b"[" * 100_000 + b"]" * 100_000),
    "deep tools": b'{"messages": [], "tools": %s1%s}' % (b'[{"a":' * 50_000, b"}]" * 50_000),
    "deep and open": b'{"messages": ' + b'{"a":' * 100_000,
    "huge number": b'{"messages": [], "max_tokens": ' + b"9" * 10_000 + b"}",
    "infinity": b'{"messages": [], "max_tokens": 1e999, "n": -1e999}',
    "NaN": b'{"messages": [], "max_tokens": NaN}',
    "no object": b"[1, 2, 3]",
    "null": b"null",
    "a string": b'"messages"',
    "no messages": b'{"model": "m"}',
    "messages a string": b'{"messages": "hello"}',
    "messages null": b'{"messages": null}',
    "messages numbers": b'{"messages": [1, null, true, "x", []]}',
    "null fields": json.dumps(dict.fromkeys(("model", "stream", "tools", "n", "user"), None)).encode(),
    "null in messages": b'{"messages": [{"role": null, "content": null, "tool_calls": null}]}',
    "unknown role": json.dumps({"messages": [{"role": "wizard", "content": PROMPT}]}).encode(),
    "wrong types": json.dumps(
        {"messages": [MESSAGE], "stream": "yes", "n": {}, "max_tokens": [], "tools": 3, "metadata": 7}
    ).encode(),
    "odd stream options": json.dumps({"messages": [MESSAGE], "stream_options": "all"}).encode(),
    "duplicate keys": b'{"messages": [], "stream": true, "messages": "x", "stream": false}',
    "odd ids": json.dumps({"messages": [MESSAGE], "session_id": ["a\r\nb"], "user": {"a": 1}}).encode(),
    "control characters in an id": json.dumps({"messages": [MESSAGE], "session_id": "a\r\nx: y"}).encode(),
    "a long id": json.dumps({"messages": [MESSAGE], "session_id": "s" * 100_000}).encode(),
    "many tool calls": json.dumps(
        {"messages": [{"role": "assistant", "tool_calls": [{"id": "x"}] * 10_000}]}
    ).encode(),
    "not JSON": b"--boundary\r\ncontent-disposition: form-data\r\n\r\nhello\r\n",
}


async def test_odd_bodies_reach_the_backend_as_they_are() -> None:
    """It knows best what it takes; each on each tracked route, so also each for the wrong route."""
    async with rigged() as rig:
        for path in (CHAT, "/v1/completions", "/v1/responses", "/v1/messages"):
            for name, body in BODIES.items():
                seen = await ask(rig.client, "POST", path, content=body, headers=JSON)
                assert (seen.status, seen.is_whole) == (200, True), name
                assert rig.bodies.pop() == body, name


@pytest.mark.parametrize("kind", ["text/plain", "multipart/form-data; boundary=x", "application/xml", ""])
async def test_the_content_type_is_the_backends_to_judge(kind: str) -> None:
    """It is passed on."""
    async with rigged() as rig:
        body = json.dumps(chat()).encode()
        assert (
            await ask(rig.client, "POST", CHAT, content=body, headers={"content-type": kind})
        ).status == 200
        assert b"content-type: " + kind.encode() in rig.backend.requests[-1].lower()


async def test_an_answer_that_asks_usage_of_a_deep_body() -> None:
    """What the proxy adds goes in without reading the rest."""
    deep = b"[" * 1000 + b"]" * 1000
    body = b'{"messages": [{"role": "user", "content": "x"}], "x": %s, "stream": true}' % deep
    async with rigged() as rig:
        assert (await ask(rig.client, "POST", CHAT, content=body, headers=JSON)).status == 200
        assert deep in rig.bodies[-1]


# -- bodies that are too large or too slow --------------------------------------------------------


async def test_a_body_announced_too_large_is_not_read() -> None:
    """413 as soon as the length is known."""
    async with rigged() as rig, raw_client(rig) as client:
        await client.send(post(CHAT, b"{", length=65 * MIB))
        assert await client.refusal() == (413, "body_too_large")
        assert await client.rest() == b""


async def test_a_client_that_sends_all_of_a_too_large_body_gets_the_answer() -> None:
    """And no reset in its place."""
    async with rigged(max_body_bytes=MIB) as rig:
        for _ in range(3):
            seen = await ask(rig.client, "POST", CHAT, content=b"x" * (4 * MIB))
            assert (seen.status, seen.code) == (413, "body_too_large")


async def test_a_chunked_body_that_grows_too_large() -> None:
    """Stopped where it passes the bound: most of it is never read."""
    sent = 0

    async def endless() -> AsyncIterator[bytes]:
        nonlocal sent
        for _ in range(4096):
            sent += 64 * KIB
            yield b"x" * (64 * KIB)

    async with rigged(max_body_bytes=MIB) as rig, raw_client(rig) as client:
        await client.send(
            b"POST /v1/chat/completions HTTP/1.1\r\nhost: h\r\ntransfer-encoding: chunked\r\n\r\n"
        )
        sending = asyncio.get_running_loop().create_task(_send_chunks(client, endless()))
        assert await client.refusal() == (413, "body_too_large")
        sending.cancel()
        await asyncio.gather(sending, return_exceptions=True)


async def _send_chunks(client: RawClient, parts: AsyncIterator[bytes]) -> None:
    async for part in parts:
        await client.send(b"%x\r\n%s\r\n" % (len(part), part))


async def test_a_body_that_trickles() -> None:
    """408 after the time for all of it, though a byte comes every now and then."""
    async with rigged(body_timeout_s=0.3) as rig, raw_client(rig) as client:
        await client.send(post(CHAT, b"", length=1000))
        for _ in range(8):
            await client.send(b" ")
            await asyncio.sleep(0.05)
        assert await client.refusal() == (408, "body_too_slow")


@pytest.mark.parametrize(
    "path", ["/v1/audio/transcriptions", "/mars/v1/tools", "/finish_session", "/v1/files"]
)
async def test_a_body_that_stops_coming(path: str) -> None:
    """On every kind of route, streamed or not."""
    async with rigged(body_timeout_s=0.2) as rig, raw_client(rig) as client:
        length = 4 * MIB if path == "/v1/files" else 1000
        await client.send(post(path, b"{", length=length))
        assert await client.refusal() == (408, "body_too_slow")


async def test_chunked_bodies() -> None:
    """With extensions and trailers, in pieces."""
    body = json.dumps(chat()).encode()
    async with rigged() as rig, raw_client(rig) as client:
        await client.send(
            b"POST /v1/chat/completions HTTP/1.1\r\nhost: h\r\ntransfer-encoding: chunked\r\n\r\n"
        )
        for byte in body:
            await client.send(b"1;a=b\r\n" + bytes((byte,)) + b"\r\n")
        await client.send(b"0\r\nx-trailer: 1\r\n\r\n")
        assert (await client.answer())[::2] == (200, faulty.UNARY)
        assert rig.bodies == [body]


async def test_100_continue() -> None:
    """The client waits for it before it sends its body; the backend never hears of it."""
    body = json.dumps(chat()).encode()
    async with rigged() as rig, raw_client(rig) as client:
        await client.send(post(CHAT, b"", b"expect: 100-continue", length=len(body)))
        assert await client.reader.readuntil(b"\r\n\r\n") == b"HTTP/1.1 100 Continue\r\n\r\n"
        await client.send(body)
        assert (await client.answer())[0] == 200
        assert b"expect" not in rig.backend.requests[-1].lower()


# -- what is hardly HTTP --------------------------------------------------------------------------


@pytest.mark.parametrize(
    "length",
    [b"abc", b"-1", b"+5", b"1_0", b"0x10", b"5, 5", b"5\r\ncontent-length: 6", b"9" * 30, b"\xc2\xb2", b""],
)
async def test_lengths_that_are_none(length: bytes) -> None:
    """400, and the connection is closed: nobody knows where the next request begins."""
    async with rigged() as rig, raw_client(rig) as client:
        await client.send(
            b"POST /v1/embeddings HTTP/1.1\r\nhost: h\r\ncontent-length: " + length + b"\r\n\r\nhello"
        )
        assert await client.refusal() == (400, "not_http")
        assert await client.rest() == b""
        assert rig.backend.requests == []


@pytest.mark.parametrize(
    "request_bytes",
    [
        b"hello\r\n\r\n",
        b"\x16\x03\x01\x02\x00\x01\x00\x01\xfc\x03\x03" + b"\x00" * 50,
        b"GET / HTTP/9.9\r\nhost: h\r\n\r\n",
        b"PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n",
        b"GET /\xff\xfe HTTP/1.1\r\nhost: h\r\n\r\n",
        b"CONNECT example.com:443 HTTP/1.1\r\nhost: h\r\n\r\n",
        b"GET / HTTP/1.1\r\nbad name: x\r\n\r\n",
        b"GET / HTTP/1.1\r\nx: a\x00b\r\n\r\n",
        b"POST / HTTP/1.1\r\nhost: h\r\ncontent-length: 3\r\ntransfer-encoding: chunked\r\n\r\n0\r\n\r\n",
        b"POST / HTTP/1.1\r\nhost: h\r\ntransfer-encoding: gzip\r\n\r\nhello",
    ],
)
async def test_what_is_no_http_is_refused(request_bytes: bytes) -> None:
    """400 in our shape; the backend never hears of it."""
    async with rigged() as rig, raw_client(rig) as client:
        await client.send(request_bytes)
        assert await client.refusal() == (400, "not_http")
        assert rig.backend.requests == []


async def test_chunks_that_make_no_sense() -> None:
    """In the middle of a body."""
    async with rigged() as rig, raw_client(rig) as client:
        await client.send(
            b"POST /v1/chat/completions HTTP/1.1\r\nhost: h\r\ntransfer-encoding: chunked\r\n\r\n"
        )
        await client.send(b"5\r\nhello\r\nzz\r\n")
        assert await client.refusal() == (400, "not_http")
        assert await client.rest() == b""


async def test_headers_that_are_too_large() -> None:
    """431."""
    async with rigged() as rig, raw_client(rig) as client:
        await client.send(b"GET /v1/models HTTP/1.1\r\nx: " + b"a" * 70_000 + b"\r\n\r\n")
        assert await client.refusal() == (431, "headers_too_large")


async def test_headers_that_trickle() -> None:
    """408."""
    async with rigged(header_timeout_s=0.2) as rig, raw_client(rig) as client:
        await client.send(b"GET /v1/models HTTP/1.1\r\nx: ")
        assert await client.refusal() == (408, "headers_too_slow")


async def test_pipelined_requests() -> None:
    """Answered in their order."""
    async with rigged() as rig, raw_client(rig) as client:
        bodies = [json.dumps(chat(f"{PROMPT} {number}")).encode() for number in range(5)]
        await client.send(b"".join(post(CHAT, body) for body in bodies))
        for _ in bodies:
            assert (await client.answer())[::2] == (200, faulty.UNARY)
        assert rig.bodies == bodies


@pytest.mark.parametrize("upgrade", [b"websocket", b"h2c"])
async def test_upgrades_are_ignored(upgrade: bytes) -> None:
    """As HTTP allows: the answer is that of an ordinary request, and so are those after it."""
    head = b"host: h\r\nconnection: upgrade\r\nupgrade: " + upgrade + b"\r\nsec-websocket-key: x\r\n\r\n"
    async with rigged() as rig, raw_client(rig) as client:
        await client.send(b"GET /v1/realtime HTTP/1.1\r\n" + head)
        assert (await client.answer())[0] == 200
        assert b"upgrade" not in rig.backend.requests[-1].lower()
        await client.send(b"GET /v1/models HTTP/1.1\r\nhost: h\r\n\r\n")
        assert (await client.answer())[0] == 200


async def test_absolute_targets() -> None:
    """As sent to a forward proxy: the path is what counts."""
    async with rigged() as rig, raw_client(rig) as client:
        await client.send(b"GET http://elsewhere.example/v1/models?a=%20b HTTP/1.1\r\nhost: h\r\n\r\n")
        assert (await client.answer())[0] == 200
        assert rig.backend.requests[-1].startswith(b"GET /v1/models?a=%20b HTTP/1.1")


@pytest.mark.parametrize(
    "target", [b"/a//b/../c", b"/a%2Fb%00%ff?x=%zz&y=a+b", b"//host/path", b"/a;b=c?d#e"]
)
async def test_targets_reach_the_backend_as_they_are(target: bytes) -> None:
    """Nothing is decoded or tidied."""
    async with rigged() as rig, raw_client(rig) as client:
        await client.send(b"GET " + target + b" HTTP/1.1\r\nhost: h\r\n\r\n")
        assert (await client.answer())[0] == 200
        assert rig.backend.requests[-1].split()[1] == target.partition(b"#")[0]


async def test_a_target_that_is_no_path() -> None:
    """400."""
    async with rigged() as rig, raw_client(rig) as client:
        await client.send(b"OPTIONS * HTTP/1.1\r\nhost: h\r\n\r\n")
        assert await client.refusal() == (400, "bad_target")


async def test_http_1_0() -> None:
    """Answered, and the connection is closed."""
    body = json.dumps(chat()).encode()
    async with rigged() as rig, raw_client(rig) as client:
        await client.send(post(CHAT, body).replace(b"HTTP/1.1", b"HTTP/1.0"))
        assert (await client.answer())[::2] == (200, faulty.UNARY)
        assert await client.rest() == b""


async def test_a_post_without_body_or_length() -> None:
    """The backend says what it misses."""
    async with rigged() as rig, raw_client(rig) as client:
        for path in (CHAT, "/v1/embeddings"):
            await client.send(b"POST " + path.encode() + b" HTTP/1.1\r\nhost: h\r\n\r\n")
            assert (await client.answer())[0] == 200
        assert rig.bodies == [b"", b""]


# -- the proxy's own routes -----------------------------------------------------------------------


@pytest.mark.parametrize(
    ("method", "path", "body", "status", "code"),
    [
        ("GET", "/mars/v1/sessions?limit=0", b"", 400, "bad_parameter"),
        ("GET", "/mars/v1/sessions?limit=-5", b"", 400, "bad_parameter"),
        ("GET", "/mars/v1/sessions?limit=10001", b"", 400, "bad_parameter"),
        ("GET", "/mars/v1/sessions?limit=all", b"", 400, "bad_parameter"),
        ("GET", "/mars/v1/sessions/unknown", b"", 404, "not_found"),
        ("GET", "/mars/v1/nothing", b"", 404, "not_found"),
        ("GET", "/mars/nothing", b"", 404, "not_found"),
        ("POST", "/mars/v1/sessions", b"", 405, "method_not_allowed"),
        ("GET", "/finish_session", b"", 405, "method_not_allowed"),
        ("POST", "/finish_session", b"", 400, "bad_body"),
        ("POST", "/finish_session", b"{}", 400, "bad_body"),
        ("POST", "/finish_session", b'{"session_id": 7}', 400, "bad_body"),
        ("POST", "/finish_session", b'{"x": ' + b"[" * 100_000, 400, "bad_body"),
        ("POST", "/programs/release", b"\xff\xfe", 400, "bad_body"),
        ("POST", "/programs/release", b"[]", 400, "bad_body"),
        ("POST", "/mars/v1/tools", b'{"events": [{"phase": "jumped"}]}', 400, "bad_body"),
        ("POST", "/mars/v1/tools", b"x" * (MAX_OWN_BODY_BYTES + 1), 413, "body_too_large"),
    ],
)
async def test_own_routes(method: str, path: str, body: bytes, status: int, code: str) -> None:
    """Every refusal has one shape, names what is allowed, and quotes nothing."""
    async with rigged() as rig:
        seen = await ask(rig.client, method, path, content=body)
        assert (seen.status, seen.code) == (status, code)
        assert seen.headers["x-mars-reason"] == code


async def test_a_wrong_parameter_is_named() -> None:
    """With what is allowed."""
    async with rigged() as rig:
        seen = await ask(rig.client, "GET", "/mars/v1/sessions?limit=0")
        assert b"limit: " in seen.body
        assert b"greater than or equal to 1" in seen.body

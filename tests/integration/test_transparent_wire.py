"""The same bytes through the proxy as straight from the backend, below what client libraries can say.

Odd paths and queries, repeated and non-ASCII headers, compressed bodies, events cut anywhere.
"""

import asyncio
import gzip
import json
import zlib
from functools import partial

import pytest

from tests.integration import vllm_answers as vllm
from tests.integration.byte_backend import ByteBackend, Close, Reply, Step, Wait, chunk, head, streamed, whole
from tests.integration.comparison import TURN_HEADERS, Compared, Paths
from tests.integration.conftest import RunProxy
from tests.integration.http_messages import Message
from tests.integration.raw_client import exchange, request
from tests.integration.tap import tapped
from tests.integration.vllm_answers import JSON, SSE

CHAT = "/v1/chat/completions"
BODY = json.dumps({"model": "tiny", "messages": [{"role": "user", "content": "hé"}]}).encode()
STREAM_BODY = json.dumps(
    {"model": "tiny", "stream": True, "messages": [{"role": "user", "content": "hé"}]}
).encode()
ASKING_BODY = STREAM_BODY.replace(b"{", b'{"stream_options": {"include_usage": true}, ', 1)
KEYED = ("authorization: Bearer sk-1", "content-type: application/json", "accept-encoding: gzip, br")


async def compare(paths: Paths, data: bytes) -> Compared[Message]:
    """The result is the answer as the client read it."""
    compared = await paths.compare(partial(exchange, data=data))
    assert compared.proxied.result.body == compared.direct.result.body
    return compared


def assert_same(compared: Compared[Message], *, is_turn: bool, asks_usage: bool = False) -> None:
    compared.assert_same_requests(TURN_HEADERS if is_turn else set(), asks_usage=asks_usage)
    compared.assert_same_answers(is_turn=is_turn)


# -- what belongs to no session --------------------------------------------------------------------

UNTRACKED = [
    "GET /v1/models",
    "GET /v1/models/org%2Fname%20x",
    "GET /health",
    "GET /v1/responses/resp_1?starting_after=3&stream=true",
    "DELETE /v1/responses/resp_1",
    "POST /v1/responses/resp_1/cancel",
    "HEAD /v1/models",
    "OPTIONS /v1/chat/completions",
    "GET /v1/chat/completions",
    "PATCH /x//y/./z/../%2e%2E/?q",
    "GET /?a=%zz&b=+&c=%2F;d&&e==f?g&h=[i]|j{k}&l=%E9",
    "GET /v1/files/a;b=c,d:e@f$g!h'i(j)*k~",
]
UNTRACKED_WITH_BODY = [
    "POST /v1/embeddings",
    "POST /tokenize",
    "POST /v1/chat/completions/",
    "PUT /v1/things/%C3%A9",
    "DELETE /v1/things/1",
    "GET /v1/search",
]


@pytest.mark.parametrize("start", UNTRACKED)
async def test_requests_without_a_body(paths: Paths, start: str) -> None:
    method, target = start.split(" ")
    body = b"" if method == "HEAD" else b'{"data": [1.0]}'
    reply = whole(body, JSON, 'etag: W/"1"', "x-cache:  hit ", "set-cookie: a=1", "set-cookie: b=2")
    paths.backend.reply(method, target, reply)
    compared = await compare(paths, request(start, *KEYED, "x-twice: 1", "X-Twice: 2", "cookie: a=b; c=d"))
    assert_same(compared, is_turn=False)
    assert compared.proxied.result.status == 200


@pytest.mark.parametrize("start", UNTRACKED_WITH_BODY)
@pytest.mark.parametrize("size", [1, 3_000_000])
async def test_requests_with_a_body(paths: Paths, start: str, size: int) -> None:
    method, target = start.split(" ")
    paths.backend.reply(method, target, whole(b"\x00\xff" * size, "content-type: x/y"))
    compared = await compare(
        paths, request(start, "content-type: x/y;q=1", body=b"\xff\x00\r\n"[:size] * size)
    )
    assert_same(compared, is_turn=False)


async def test_a_body_of_unknown_length(paths: Paths) -> None:
    paths.backend.reply("POST", "/v1/audio", whole(b"ok"))
    data = request("POST /v1/audio", "transfer-encoding: chunked") + chunk(b"ab") + chunk(b"c") + b"0\r\n\r\n"
    compared = await compare(paths, data)
    assert_same(compared, is_turn=False)
    assert compared.proxied.requests[0].body == b"abc"


async def test_an_empty_body_is_no_missing_body(paths: Paths) -> None:
    paths.backend.reply("POST", "/v1/load", whole(b"ok"))
    compared = await compare(paths, request("POST /v1/load", "content-length: 0"))
    assert_same(compared, is_turn=False)
    assert compared.proxied.requests[0].header(b"content-length") == b"0"


@pytest.mark.parametrize(
    "reply",
    [
        (head("304 Not Modified", 'etag: "1"'),),
        (head("204 No Content", "x-a: b"),),
        (head("307 Temporary Redirect", "location: /v1/models/", "content-length: 0"),),
        (head("200 OK", "connection: close") + b"up to the end", Close()),
        (head("200 OK", "connection: close"), Close()),
        (head("103 Early Hints", "link: </a>") + whole(b"late")[0],),
    ],
    ids=["not modified", "no content", "redirect", "until close", "nothing until close", "early hints"],
)
async def test_answers_of_other_lengths(paths: Paths, reply: Reply) -> None:
    paths.backend.reply("GET", "/x", reply)
    assert_same(await compare(paths, request("GET /x")), is_turn=False)


async def test_not_modified_leaves_out_the_length_of_what_it_leaves_out(paths: Paths) -> None:
    paths.backend.reply("GET", "/x", (head("304 Not Modified", 'etag: "1"', "content-length: 5"),))
    compared = await compare(paths, request("GET /x"))
    compared.assert_same_requests(set())
    assert compared.proxied.result.status == 304
    assert compared.proxied.result.headers == [(b"etag", b'"1"')]


async def test_the_answer_to_head_keeps_its_length(paths: Paths) -> None:
    paths.backend.reply("HEAD", "/x", (head("200 OK", "content-length: 12345"),))
    compared = await compare(paths, request("HEAD /x"))
    assert_same(compared, is_turn=False)
    assert compared.proxied.result.header(b"content-length") == b"12345"


# -- headers ---------------------------------------------------------------------------------------


@pytest.mark.parametrize("target", ["/v1/models", CHAT])
async def test_headers_of_every_kind(paths: Paths, target: str) -> None:
    answer_headers = [
        "set-cookie: a=1; Path=/",
        "set-cookie: b=2; Secure",
        "x-twice: 1",
        "x-other: 0",
        "x-twice: 2",
        "x-empty:",
        "x-utf8: zoë 🙂".encode(),
        "x-latin1: zoë".encode("latin-1"),
        "x-tab: a\tb",
        'www-authenticate: Basic realm="a, b", Digest',
        "server: uvicorn",
        "date: Thu, 01 Jan 1970 00:00:00 GMT",
        "vary: Origin",
    ]
    request_headers = [
        "x-twice: 1",
        "x-other: 0",
        "x-twice: 2",
        "x-empty:",
        "x-utf8: zoë 🙂".encode(),
        "x-tab: a\tb",
        "cookie: a=1",
        "cookie: b=2",
        "x-forwarded-for: 10.0.0.1",
        "forwarded: for=10.0.0.1;proto=https",
        "via: 1.1 other",
        "user-agent: curl/8",
        "accept: */*",
        "origin: https://example.org",
        "x-request-id: 7",
        "x-stainless-timeout: 600",
        'if-none-match: "1"',
        "range: bytes=0-1",
    ]
    for method in ("GET", "POST"):
        paths.backend.reply(method, target, whole(b"{}", JSON, *answer_headers))
    method = "POST" if target == CHAT else "GET"
    data = request(f"{method} {target}", *KEYED, *request_headers, body=BODY if target == CHAT else b"")
    assert_same(await compare(paths, data), is_turn=target == CHAT)


async def test_large_headers(paths: Paths) -> None:
    """As an API gateway in front of the backend may add them: tokens, policies, many cookies."""
    many = [f"x-{number}: {number}" for number in range(100)]
    paths.backend.reply("POST", CHAT, whole(b"{}", JSON, "x-large: " + "a" * 40_000, *many))
    data = request(f"POST {CHAT}", *KEYED, "x-large: " + "b" * 40_000, *many, body=BODY)
    assert_same(await compare(paths, data), is_turn=True)


async def test_what_the_client_chose_stays(paths: Paths) -> None:
    paths.backend.reply("POST", CHAT, whole(vllm.CHAT, JSON))
    chosen = ("x-vllm-priority: 7", "x-session-id: mine", "x-mars-session: other")
    compared = await compare(paths, request(f"POST {CHAT}", *KEYED, *chosen, body=BODY))
    compared.assert_same_requests(set())
    compared.assert_same_answers()


async def test_a_priority_in_the_body_stays_alone(paths: Paths) -> None:
    paths.backend.reply("POST", CHAT, whole(vllm.CHAT, JSON))
    body = BODY.replace(b"{", b'{ "priority" : -3, "priority2": 1e3,', 1)
    compared = await compare(paths, request(f"POST {CHAT}", *KEYED, body=body))
    compared.assert_same_requests({b"x-session-id"})


# -- bodies ----------------------------------------------------------------------------------------


@pytest.mark.parametrize("encoding", ["gzip", "deflate", "br"])
async def test_compressed_answers(paths: Paths, encoding: str) -> None:
    packed = gzip.compress(vllm.CHAT, mtime=0) if encoding == "gzip" else zlib.compress(vllm.CHAT)
    paths.backend.reply(
        "POST", CHAT, whole(packed, JSON, f"content-encoding: {encoding}", "vary: accept-encoding")
    )
    assert_same(await compare(paths, request(f"POST {CHAT}", *KEYED, body=BODY)), is_turn=True)


@pytest.mark.parametrize("asks", [True, False])
async def test_a_compressed_stream(paths: Paths, asks: bool) -> None:
    """Compressed in spite of being asked not to: then nobody looks for usage in it."""
    packed = gzip.compress(b"".join(vllm.chat_stream(*vllm.CHAT_DELTAS)), mtime=0)
    parts = [packed[:7], packed[7:50], packed[50:]]
    paths.backend.reply("POST", CHAT, streamed(parts, SSE, "content-encoding: gzip"))
    body = ASKING_BODY if asks else STREAM_BODY
    compared = await compare(paths, request(f"POST {CHAT}", *KEYED, body=body))
    assert_same(compared, is_turn=True, asks_usage=not asks)


async def test_a_compressed_request_passes_unread(paths: Paths) -> None:
    paths.backend.reply("POST", CHAT, whole(vllm.CHAT, JSON))
    data = request(f"POST {CHAT}", *KEYED, "content-encoding: gzip", body=gzip.compress(BODY))
    assert_same(await compare(paths, data), is_turn=False)


@pytest.mark.parametrize(
    "body",
    [
        b"",
        b"{",
        b"[]",
        b"null",
        b"\xff\xfe{}",
        b'{"messages": "no list"}',
        b'{"messages": [], "messages": 3}',
        BODY.replace(b'"tiny"', b"NaN"),
        b'{"messages":[{"role":"user","content":' + b"[" * 5000 + b"]" * 5000 + b"}]}",
    ],
    ids=["none", "half", "list", "null", "utf-16", "text", "twice", "nan", "deep"],
)
async def test_bodies_that_are_the_backends_to_refuse(paths: Paths, body: bytes) -> None:
    paths.backend.reply("POST", CHAT, whole(b'{"error": {}}', JSON, status="400 Bad Request"))
    length = () if body else ("content-length: 0",)
    compared = await compare(paths, request(f"POST {CHAT}", *KEYED, *length, body=body))
    assert_same(compared, is_turn=False)
    assert compared.proxied.result.status == 400


@pytest.mark.parametrize(
    "body",
    [
        b"\xef\xbb\xbf" + BODY,
        b" \r\n" + BODY + b"\r\n ",
        BODY.replace(b"tiny", b'a", "model":"b\\u0000'),
    ],
    ids=["bom", "blanks", "escapes"],
)
async def test_bodies_that_no_serialiser_writes(paths: Paths, body: bytes) -> None:
    paths.backend.reply("POST", CHAT, whole(vllm.CHAT, JSON))
    assert_same(await compare(paths, request(f"POST {CHAT}", *KEYED, body=body)), is_turn=True)


# -- streams ---------------------------------------------------------------------------------------


def cut_into(data: bytes, size: int) -> list[bytes]:
    return [data[start : start + size] for start in range(0, len(data), size)]


@pytest.mark.parametrize("size", [1, 7, 64, 1000])
@pytest.mark.parametrize("is_crlf", [False, True], ids=["lf", "crlf"])
async def test_events_cut_anywhere(paths: Paths, size: int, is_crlf: bool) -> None:
    """Each cut is a chunk of its own, several to a segment."""

    def answer(received: Message) -> Reply:
        asked = b'"include_usage":true' in received.body
        data = b"".join(vllm.chat_stream(*vllm.CHAT_DELTAS, *vllm.CHAT_TOOL_DELTAS, asked=asked))
        data = data.replace(b"\n", b"\r\n") if is_crlf else data
        return (
            head("200 OK", SSE, "transfer-encoding: chunked"),
            *map(chunk, cut_into(data, size)),
            b"0\r\n\r\n",
        )

    paths.backend.answer("POST", CHAT, answer)
    compared = await compare(paths, request(f"POST {CHAT}", *KEYED, body=STREAM_BODY))
    assert_same(compared, is_turn=True, asks_usage=True)


@pytest.mark.parametrize("body", [STREAM_BODY, ASKING_BODY], ids=["unasked", "asked"])
async def test_comments_and_other_fields_of_events(paths: Paths, body: bytes) -> None:
    events = [
        b": ping\n\n",
        b"id: 1\nretry: 10\nevent: x\ndata: {\ndata: }\n\n",
        b"\n\n\n",
        b"data:\n\n",
        *vllm.chat_stream(*vllm.CHAT_DELTAS)[:-1],
        b": nearly there\n\n",
        vllm.DONE,
        b": after the end\n\n",
        b"data: half an event",
    ]
    paths.backend.reply("POST", CHAT, streamed(events, SSE))
    compared = await compare(paths, request(f"POST {CHAT}", *KEYED, body=body))
    assert_same(compared, is_turn=True, asks_usage=body is STREAM_BODY)


async def test_a_stream_with_a_length(paths: Paths) -> None:
    """What is taken out of it changes its length."""

    def answer(received: Message) -> Reply:
        asked = b'"include_usage":true' in received.body
        return whole(b"".join(vllm.chat_stream(*vllm.CHAT_DELTAS, asked=asked)), SSE)

    paths.backend.answer("POST", CHAT, answer)
    compared = await compare(paths, request(f"POST {CHAT}", *KEYED, body=STREAM_BODY))
    compared.assert_same_requests(TURN_HEADERS, asks_usage=True)


EVENTS = vllm.chat_stream(*vllm.CHAT_DELTAS)[:4]
PACKED = cut_into(gzip.compress(b"".join(EVENTS), mtime=0), 60)


@pytest.mark.parametrize(
    ("body", "events", "encoding"),
    [
        (STREAM_BODY, EVENTS, "identity"),
        (ASKING_BODY, EVENTS, "identity"),
        (STREAM_BODY, PACKED, "gzip"),
        (ASKING_BODY, PACKED, "gzip"),
    ],
    ids=["unasked", "asked", "unasked, compressed", "asked, compressed"],
)
async def test_every_event_is_passed_on_before_the_next_comes(
    byte_backend: ByteBackend, run_proxy: RunProxy, body: bytes, events: list[bytes], encoding: str
) -> None:
    gates = [asyncio.Event() for _ in events]
    steps: list[Step] = [head("200 OK", SSE, "transfer-encoding: chunked", f"content-encoding: {encoding}")]
    for event, gate in zip(events, gates, strict=True):
        steps += [chunk(event), Wait(gate)]
    byte_backend.reply("POST", CHAT, (*steps, chunk(vllm.DONE) + b"0\r\n\r\n"))
    async with run_proxy(byte_backend.url) as proxy, tapped(proxy.url) as tap:
        async with asyncio.TaskGroup() as group:
            answer = group.create_task(exchange(tap.url, request(f"POST {CHAT}", *KEYED, body=body)))
            for event, gate in zip(events, gates, strict=True):
                async with asyncio.timeout(10):
                    while not tap.connections or event not in tap.connections[0].received:  # noqa: ASYNC110
                        await asyncio.sleep(0.002)
                gate.set()
        assert answer.result().body == b"".join([*events, vllm.DONE])


async def test_several_requests_over_one_connection(byte_backend: ByteBackend, run_proxy: RunProxy) -> None:
    """Also pipelined: answers come back in order, none is lost."""
    byte_backend.reply("POST", CHAT, whole(vllm.CHAT, JSON))
    byte_backend.reply("GET", "/v1/models", whole(b"models", JSON))
    one, two = request(f"POST {CHAT}", *KEYED, body=BODY), request("GET /v1/models", *KEYED)
    async with run_proxy(byte_backend.url) as proxy, tapped(proxy.url) as tap:
        reader, writer = await asyncio.open_connection("127.0.0.1", int(tap.url.rsplit(":", 1)[1]))
        writer.write(one + two + one + two)
        async with asyncio.timeout(10):
            while len(tap.exchanges()) < 4:
                assert await reader.read(65536)
        writer.close()
        await writer.wait_closed()
    assert [answer.body for _, answer in tap.exchanges()] == [vllm.CHAT, b"models"] * 2

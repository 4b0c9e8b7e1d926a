"""A backend with the backend patch, as far as a proxy can tell: real HTTP, scripted answers, every byte kept.

It serves in the test's own loop. What the patch would find out from its scheduler the test sets: ranks,
endings of leases, whether it is there at all.
"""

import asyncio
import socket
from collections.abc import AsyncIterator, Callable
from contextlib import asynccontextmanager
from dataclasses import dataclass, field
from typing import Any

import msgspec
import uvicorn

from backend_patch.protocol import (
    BATCH_PATH,
    CAPABILITIES_PATH,
    HEADROOM_PATH,
    Capabilities,
    Headroom,
    KvAnswer,
    KvRequest,
    KvStatus,
    LeaseEnding,
    RankHeadroom,
)

PATCH = Capabilities("0.1", "0.32.0")
METRICS_PAGE = b"""# TYPE vllm:cache_config_info gauge
vllm:cache_config_info{block_size="16",num_gpu_blocks="1000"} 1.0
# TYPE vllm:kv_cache_usage_perc gauge
vllm:kv_cache_usage_perc{engine="0"} 0.5
"""
DELTA = b'data: {"choices":[{"index":0,"delta":{"content":"hi"},"finish_reason":null}]}\n\n'
CALL = {"id": "call-1", "type": "function", "function": {"name": "ls", "arguments": "{}"}}
ANSWER = {
    "choices": [
        {
            "index": 0,
            "finish_reason": "tool_calls",
            "message": {"role": "assistant", "content": None, "tool_calls": [CALL]},
        }
    ],
    "usage": {"prompt_tokens": 100, "completion_tokens": 10},
}


def rank(**fields: Any) -> RankHeadroom:
    """A rank that is idle and empty, but for what the test says."""
    idle = {
        "rank": 0,
        "step": 1,
        "at_s": 0.0,
        "block_tokens": 16,
        "blocks": 1000,
        "free_blocks": 1000,
        "leased_blocks": 0,
        "claimed_blocks": 0,
        "running": 0,
        "waiting": 0,
        "waiting_continuations": 0,
        "waiting_prefill_tokens": 0,
        "preemptions_total": 0,
        "prefix_queries_total": 0,
        "prefix_hits_total": 0,
    }
    return RankHeadroom(**(idle | fields))


def accept(request: KvRequest) -> KvAnswer:
    return KvAnswer(KvStatus.ACCEPTED, request.session, request.op, blocks=4, tokens=64)


@dataclass
class PatchedBackend:
    capabilities: Capabilities | None = PATCH
    """None: a stock vLLM."""
    rank: RankHeadroom = field(default_factory=rank)
    answers: Callable[[KvRequest], KvAnswer] = accept
    failing: set[str] = field(default_factory=set)
    """Paths that are answered 500."""
    is_streaming_for_ever: bool = False
    batches_may_go: asyncio.Event = field(default_factory=asyncio.Event)
    """Cleared: a batch is kept waiting for its answer."""
    url: str = ""
    seen: list[tuple[str, str]] = field(default_factory=list)
    """Path and query of everything that was asked."""
    bodies: list[bytes] = field(default_factory=list)
    """Of turns, as they came."""
    keys: set[str] = field(default_factory=set)
    """Authorization headers of what the proxy asked by itself."""
    batches: list[list[KvRequest]] = field(default_factory=list)
    open_batches: int = 0
    most_open_batches: int = 0
    open_turns: int = 0

    def __post_init__(self) -> None:
        self.batches_may_go.set()

    @property
    def hints(self) -> list[KvRequest]:
        return [request for batch in self.batches for request in batch]

    def asked(self, path: str) -> int:
        return sum(seen == path for seen, _ in self.seen)

    def end_lease(self, *endings: LeaseEnding) -> None:
        self.rank = msgspec.structs.replace(
            self.rank, endings=(*self.rank.endings, *endings), last_seq=endings[-1].seq
        )

    async def __call__(self, scope: Any, receive: Any, send: Any) -> None:
        if scope["type"] != "http":
            return
        path = scope["path"]
        self.seen.append((path, scope["query_string"].decode()))
        if path.startswith("/v1/mars/"):
            self.keys.add(dict(scope["headers"]).get(b"authorization", b"").decode())
        body = await _body(receive)
        if path in self.failing:
            await _answer(send, 500, b"")
        elif path == "/metrics":
            await _answer(send, 200, METRICS_PAGE)
        elif path == "/v1/chat/completions":
            await self._turn(body, receive, send)
        elif self.capabilities is None:
            await _answer(send, 404, b'{"detail":"Not Found"}')
        else:
            await self._patch(path, body, send)

    async def _patch(self, path: str, body: bytes, send: Any) -> None:
        answer: Any
        if path == CAPABILITIES_PATH:
            answer = self.capabilities
        elif path == HEADROOM_PATH:
            answer = Headroom((self._asked_for(),))
        elif path == BATCH_PATH:
            answer = await self._batch(msgspec.json.decode(body, type=list[KvRequest]))
        else:
            await _answer(send, 404, b"")
            return
        await _answer(send, 200, msgspec.json.encode(answer))

    def _asked_for(self) -> RankHeadroom:
        """Endings after the number in the query; none without one."""
        query = self.seen[-1][1]
        after = int(query.split("after=0:")[1]) if "after=0:" in query else None
        endings = tuple(e for e in self.rank.endings if after is not None and e.seq > after)
        return msgspec.structs.replace(self.rank, endings=endings)

    async def _batch(self, batch: list[KvRequest]) -> list[KvAnswer]:
        self.batches.append(batch)
        self.open_batches += 1
        self.most_open_batches = max(self.most_open_batches, self.open_batches)
        await self.batches_may_go.wait()
        self.open_batches -= 1
        return [self.answers(request) for request in batch]

    async def _turn(self, body: bytes, receive: Any, send: Any) -> None:
        self.bodies.append(body)
        if not self.is_streaming_for_ever:
            await _answer(send, 200, msgspec.json.encode(ANSWER))
            return
        self.open_turns += 1
        headers = [(b"content-type", b"text/event-stream")]
        await send({"type": "http.response.start", "status": 200, "headers": headers})
        await send({"type": "http.response.body", "body": DELTA, "more_body": True})
        while (await receive())["type"] != "http.disconnect":
            pass
        self.open_turns -= 1


async def _body(receive: Any) -> bytes:
    body = b""
    while True:
        message = await receive()
        body += message.get("body", b"")
        if not message.get("more_body"):
            return body


async def _answer(send: Any, status: int, body: bytes) -> None:
    headers = [(b"content-type", b"application/json"), (b"content-length", b"%d" % len(body))]
    await send({"type": "http.response.start", "status": status, "headers": headers})
    await send({"type": "http.response.body", "body": body})


@asynccontextmanager
async def patched_backend(**settings: Any) -> AsyncIterator[PatchedBackend]:
    """On a free port of this machine."""
    backend = PatchedBackend(**settings)
    config = uvicorn.Config(
        backend, log_config=None, access_log=False, lifespan="off", timeout_graceful_shutdown=1
    )
    server = uvicorn.Server(config)
    with socket.create_server(("127.0.0.1", 0)) as listening:
        backend.url = f"http://127.0.0.1:{listening.getsockname()[1]}"
        async with _serving(server, listening):
            yield backend


@asynccontextmanager
async def _serving(server: uvicorn.Server, listening: socket.socket) -> AsyncIterator[None]:
    async with asyncio.TaskGroup() as tasks:
        tasks.create_task(server.serve([listening]))
        while not server.started:  # noqa: ASYNC110 (uvicorn has no event for it)
            await asyncio.sleep(0.005)
        try:
            yield
        finally:
            server.should_exit = True

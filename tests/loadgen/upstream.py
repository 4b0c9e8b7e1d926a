"""A model server and a tool gateway small enough to believe, for the driver to talk to."""

import asyncio
import re
import socket
import threading
import time
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from typing import Any, TypeVar

import msgspec
import uvicorn


@dataclass
class Fake:
    """Base of both: routes by method and path, remembers what it was asked."""

    url: str = ""
    seen: list[tuple[str, str]] = field(default_factory=list)

    async def __call__(self, scope: Any, receive: Any, send: Any) -> None:
        if scope["type"] != "http":
            return
        body = b""
        while True:
            message = await receive()
            body += message.get("body", b"")
            if not message.get("more_body"):
                break
        headers = {name.decode(): value.decode() for name, value in scope["headers"]}
        self.seen.append((scope["method"], scope["path"]))
        await self.answer(scope["method"], scope["path"], headers, body, send)

    async def answer(self, method: str, path: str, headers: dict[str, str], body: bytes, send: Any) -> None:
        raise NotImplementedError

    def count(self, method: str, path: str) -> int:
        return sum(m == method and re.fullmatch(path, p) is not None for m, p in self.seen)


@dataclass
class FakeModel(Fake):
    """Answers each chat with as many words as asked for, unless told to misbehave."""

    refusals: list[int] = field(default_factory=list)
    """Statuses of the next chats, before any is answered."""
    refused_headers: dict[str, str] = field(default_factory=lambda: {"retry-after": "0.01"})
    breaks: str | None = None
    """``cut``: end the stream early; ``error``: send an error event; ``garbage``: an event that is no JSON;
    ``hang``: never end it."""
    broken_session: str | None = None
    """Break only chats that mention it."""
    calls_tool: bool = False
    has_tokenize: bool = True
    chars_per_token: float = 5.0
    template_tokens: int = 40
    turn_template_tokens: int = 9
    tool_template_tokens: int = 4
    extra_headers: dict[str, str] = field(default_factory=dict)
    comment: bytes = b": held\n\n"
    chats: list[dict[str, Any]] = field(default_factory=list)
    chat_headers: list[dict[str, str]] = field(default_factory=list)

    async def answer(self, method: str, path: str, headers: dict[str, str], body: bytes, send: Any) -> None:
        match method, path:
            case "POST", "/v1/chat/completions":
                await self.chat(headers, body, send)
            case "GET", "/v1/models":
                await reply(
                    send, 200, {"object": "list", "data": [{"id": "fake-model", "max_model_len": 8192}]}
                )
            case "POST", "/tokenize" if self.has_tokenize:
                asked = msgspec.json.decode(body)
                is_chat = "messages" in asked
                texts = [each["content"] for each in asked["messages"]] if is_chat else [asked["prompt"]]
                count = sum(round(len(text) / self.chars_per_token) for text in texts)
                count += self.template_tokens * is_chat + self.turn_template_tokens * (len(texts) // 2)
                count += self.tool_template_tokens * body.count(b'"role":"tool"')
                await reply(send, 200, {"count": count})
            case "GET", "/metrics":
                await reply(send, 200, METRICS, {"content-type": "text/plain"})
            case "POST", "/reset_prefix_cache":
                await reply(send, 200, {})
            case _:
                await reply(send, 404, {"error": {"message": "not here"}})

    async def chat(self, headers: dict[str, str], body: bytes, send: Any) -> None:
        self.chat_headers.append(headers)
        if self.refusals:
            await reply(send, self.refusals.pop(0), {"error": {"message": "no"}}, self.refused_headers)
            return
        asked = msgspec.json.decode(body)
        self.chats.append(asked)
        is_broken = self.breaks is not None and (self.broken_session or "").encode() in body
        words = [f"w{len(self.chats)}-{i} " for i in range(asked["max_tokens"])]
        usage = {
            "prompt_tokens": round(len(body) / self.chars_per_token),
            "completion_tokens": len(words),
            "prompt_tokens_details": {"cached_tokens": 7},
        }
        if asked.get("stream"):
            await self.stream(words, usage, self.breaks if is_broken else None, send)
        else:
            message = {"role": "assistant", "content": "".join(words)}
            choice = {"index": 0, "message": message, "finish_reason": "length"}
            await reply(send, 200, {"choices": [choice], "usage": usage}, self.extra_headers)

    async def stream(self, words: list[str], usage: dict[str, Any], breaks: str | None, send: Any) -> None:
        await begin(send, 200, {"content-type": "text/event-stream"} | self.extra_headers)
        await more(send, self.comment)
        await more(send, event({"choices": [{"delta": {"role": "assistant", "content": ""}}]}))
        for word in words[:-1]:
            await more(send, event({"choices": [{"delta": {"content": word}}]}))
        match breaks:
            case "cut":
                await end(send)
                return
            case "error":
                await more(send, event({"error": {"message": "engine died", "code": 500}}))
                await end(send)
                return
            case "garbage":
                await more(send, b"data: {not json\n\n")
                await end(send)
                return
            case "hang":
                await asyncio.sleep(3600)
        last: dict[str, Any] = {"content": words[-1]}
        reason = "length"
        if self.calls_tool:
            call = {
                "index": 0,
                "id": f"call-{len(self.chats)}",
                "function": {"name": "bash", "arguments": "{"},
            }
            await more(send, event({"choices": [{"delta": {"tool_calls": [call]}}]}))
            last["tool_calls"] = [{"index": 0, "function": {"arguments": "}"}}]
            reason = "tool_calls"
        final = event({"choices": [{"delta": last, "finish_reason": reason}]})
        # Split anywhere, as a network does.
        await more(send, final[:25])
        await more(send, final[25:] + event({"choices": [], "usage": usage}) + b"data: [DONE]\n\n")
        await end(send)


METRICS = b"""# HELP vllm:kv_cache_usage_perc used
vllm:kv_cache_usage_perc{engine="0",model_name="a} b"} 0.25
vllm:num_requests_running{engine="0"} 3.0
vllm:num_requests_running{engine="1"} 1.0 1700000000
vllm:num_preemptions_total 5
mars_held_turns 2
vllm:num_requests_running_other 9
"""


@dataclass
class FakeGateway(Fake):
    refusals: list[int] = field(default_factory=list)
    exit_code: int = 0
    is_slow: bool = False
    """The first answer says that it is still running."""
    hangs_on_delete: bool = False
    execs: list[dict[str, Any]] = field(default_factory=list)
    keys: list[str] = field(default_factory=list)

    async def answer(self, method: str, path: str, headers: dict[str, str], body: bytes, send: Any) -> None:
        if method == "POST":
            self.keys.append(headers["idempotency-key"])
            if self.refusals:
                await reply(send, self.refusals.pop(0), {"error": {}}, {"retry-after": "0.01"})
                return
            self.execs.append(msgspec.json.decode(body))
        if method == "POST" and self.is_slow:
            await reply(send, 202, {"id": "e1", "state": "running"})
        elif method == "PUT":
            await reply(send, 201, {"id": "s"})
        elif method == "DELETE":
            if self.hangs_on_delete:
                await asyncio.sleep(3600)
            await reply(send, 200, {})
        else:
            done = {"state": "exited", "exit_code": self.exit_code, "queue_s": 0.5, "run_s": 1.5}
            await reply(send, 200, {"id": "e1"} | done)


AnyFake = TypeVar("AnyFake", bound=Fake)


async def begin(send: Any, status: int, headers: dict[str, str]) -> None:
    raw = [(name.encode(), value.encode()) for name, value in headers.items()]
    await send({"type": "http.response.start", "status": status, "headers": raw})


async def more(send: Any, body: bytes) -> None:
    await send({"type": "http.response.body", "body": body, "more_body": True})


async def end(send: Any) -> None:
    await send({"type": "http.response.body", "body": b""})


async def reply(send: Any, status: int, body: Any, headers: dict[str, str] | None = None) -> None:
    await begin(send, status, {"content-type": "application/json"} | (headers or {}))
    raw = body if isinstance(body, bytes) else msgspec.json.encode(body)
    await send({"type": "http.response.body", "body": raw})


def event(payload: Any) -> bytes:
    return b"data: " + msgspec.json.encode(payload) + b"\n\n"


@contextmanager
def serving(fake: AnyFake) -> Iterator[AnyFake]:
    """Served from a thread of its own, so that its work is not the driver's event-loop lag."""
    listener = socket.create_server(("127.0.0.1", 0), backlog=2048)
    fake.url = f"http://127.0.0.1:{listener.getsockname()[1]}"
    config = uvicorn.Config(
        fake, log_level="critical", lifespan="off", timeout_graceful_shutdown=0, backlog=2048, ws="none"
    )
    server = uvicorn.Server(config)
    thread = threading.Thread(target=server.run, args=([listener],), daemon=True)
    thread.start()
    while not server.started and thread.is_alive():
        time.sleep(0.005)
    try:
        yield fake
    finally:
        server.should_exit = True
        thread.join(10)
        listener.close()

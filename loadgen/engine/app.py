"""The HTTP face: vLLM's routes as one raw ASGI application.

Routes, bodies, headers and the watch for clients that leave. What a request means is ``frontend``'s,
what an answer looks like ``shapes``'. Raw ASGI, because proxy, load generator and engine share two
cores in the demo and a framework costs more than the model.
"""

import asyncio
import time
from collections.abc import Awaitable, Callable, MutableMapping
from http import HTTPStatus
from typing import Any
from uuid import uuid4

import msgspec

from loadgen.engine.api import B, ChatBody, CompletionBody, DetokenizeBody, GenerateBody, TokenizeBody, parse
from loadgen.engine.errors import (
    ApiError,
    body_too_large,
    engine_stopped,
    malformed,
    method_not_allowed,
    no_such_route,
)
from loadgen.engine.frontend import Frontend
from loadgen.engine.generation import Generation
from loadgen.engine.metrics import EngineMetrics
from loadgen.engine.realtime import RealTimeEngine
from loadgen.engine.request_log import RequestLog
from loadgen.engine.shapes import (
    DONE,
    ChatStream,
    CompletionStream,
    Heading,
    StreamShape,
    chat_response,
    completion_response,
    model_list,
    usage_of,
)
from loadgen.engine.tokens import bytes_of, decode, token_count, token_ids

Scope = MutableMapping[str, Any]
Receive = Callable[[], Awaitable[MutableMapping[str, Any]]]
Send = Callable[[MutableMapping[str, Any]], Awaitable[None]]

MAX_BODY_BYTES = 64 * 2**20
"""More than the longest context of any profile as JSON; vLLM itself has no limit."""

VERSION = "0.32.0"
"""The vLLM release that the engine models."""

JSON = b"application/json"


class DisconnectedError(Exception):
    """The client left before its request was complete."""


class Request:
    """One request: its headers and body, and the two callables of its connection."""

    def __init__(self, scope: Scope, receive: Receive, send: Send) -> None:
        self.headers = {key.decode("latin-1"): value.decode("latin-1") for key, value in scope["headers"]}
        self.receive = receive
        self.send = send

    async def parse(self, shape: type[B]) -> B:
        return parse(await self._body(), self.headers.get("content-type", ""), shape)

    async def respond(self, status: int, body: bytes, content_type: bytes = JSON) -> None:
        length = str(len(body)).encode()
        headers = [(b"content-type", content_type), (b"content-length", length)]
        await self.send({"type": "http.response.start", "status": status, "headers": headers})
        await self.send({"type": "http.response.body", "body": body})

    async def start_stream(self) -> None:
        headers = [(b"content-type", b"text/event-stream; charset=utf-8")]
        await self.send({"type": "http.response.start", "status": 200, "headers": headers})

    async def write(self, chunk: bytes, *, more: bool = True) -> None:
        await self.send({"type": "http.response.body", "body": chunk, "more_body": more})

    async def wait_disconnect(self) -> None:
        while (await self.receive())["type"] != "http.disconnect":
            pass

    async def _body(self) -> bytes:
        chunks: list[bytes] = []
        size = 0
        while True:
            message = await self.receive()
            if message["type"] == "http.disconnect":
                raise DisconnectedError
            chunks.append(message.get("body", b""))
            size += len(chunks[-1])
            if size > MAX_BODY_BYTES:
                raise body_too_large(MAX_BODY_BYTES)
            if not message.get("more_body"):
                return b"".join(chunks)


class EngineApp:
    def __init__(
        self,
        frontend: Frontend,
        engine: RealTimeEngine,
        metrics: EngineMetrics,
        request_log: RequestLog | None = None,
    ) -> None:
        self._frontend = frontend
        self._request_log = request_log
        self._engine = engine
        self._metrics = metrics
        self._started = int(time.time())
        self._routes: dict[str, dict[str, Callable[[Request], Awaitable[None]]]] = {
            "/v1/chat/completions": {"POST": self._chat},
            "/v1/completions": {"POST": self._completions},
            "/v1/models": {"GET": self._models},
            "/tokenize": {"POST": self._tokenize},
            "/detokenize": {"POST": self._detokenize},
            "/reset_prefix_cache": {"POST": self._reset_prefix_cache},
            "/metrics": {"GET": self._render_metrics},
            "/version": {"GET": self._version},
            "/health": {"GET": self._empty},
            "/ping": {"GET": self._empty, "POST": self._empty},
        }

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        if scope["type"] != "http":
            return
        request = Request(scope, receive, send)
        try:
            await self._route(scope)(request)
        except ApiError as refusal:
            await request.respond(refusal.status, refusal.body())
        except DisconnectedError:
            return

    def _route(self, scope: Scope) -> Callable[[Request], Awaitable[None]]:
        methods = self._routes.get(scope["path"])
        if methods is None:
            raise no_such_route()
        method = "GET" if scope["method"] == "HEAD" else scope["method"]
        if method not in methods:
            raise method_not_allowed()
        return methods[method]

    async def _chat(self, request: Request) -> None:
        body = await request.parse(ChatBody)
        generation = self._frontend.chat(body, request.headers)
        heading = self._heading("chatcmpl", body, request)
        await self._generate(request, body, generation, ChatStream(heading), heading, chat_response)

    async def _completions(self, request: Request) -> None:
        body = await request.parse(CompletionBody)
        generation = self._frontend.completion(body, request.headers)
        heading = self._heading("cmpl", body, request)
        await self._generate(
            request, body, generation, CompletionStream(heading), heading, completion_response
        )

    async def _generate(
        self,
        request: Request,
        body: GenerateBody,
        generation: Generation,
        shape: StreamShape,
        heading: Heading,
        whole: Callable[[Heading, Generation], bytes],
    ) -> None:
        """Run the generation; abort it the moment that the client is gone."""
        request_id, served = request.headers.get("x-request-id"), self._request_log
        async with asyncio.TaskGroup() as group:
            watch = group.create_task(_abort_on_disconnect(request, generation))
            try:
                if served is not None:
                    served.begun(request_id)
                generation.submit()
                if body.stream:
                    await _stream(request, body, generation, shape)
                elif await generation.wait_complete():
                    await request.respond(200, whole(heading, generation))
                else:  # goes nowhere if it was the client that left
                    await request.respond(503, engine_stopped().body())
            finally:
                generation.abort()
                watch.cancel()
                if served is not None:
                    served.ended(request_id, generation.completion_tokens, is_complete=generation.is_complete)

    async def _models(self, request: Request) -> None:
        model = self._frontend.model
        await request.respond(200, model_list(model.served_name, model.max_model_len, self._started))

    async def _tokenize(self, request: Request) -> None:
        body = await request.parse(TokenizeBody)
        prompt = self._frontend.prompt_of(body)
        ids = token_ids(prompt)
        answer = {
            "count": token_count(prompt),
            "max_model_len": self._frontend.model.max_model_len,
            "tokens": ids,
            "token_strs": [decode(bytes_of([each])) for each in ids] if body.return_token_strs else None,
        }
        await request.respond(200, msgspec.json.encode(answer))

    async def _detokenize(self, request: Request) -> None:
        body = await request.parse(DetokenizeBody)
        self._frontend.check_model(body.model)
        try:
            prompt = decode(bytes_of(body.tokens))
        except ValueError as exc:
            raise malformed(str(exc), "body.tokens") from exc
        await request.respond(200, msgspec.json.encode({"prompt": prompt}))

    async def _reset_prefix_cache(self, request: Request) -> None:
        """Empty the cache; refused with 409 while requests hold blocks (vLLM logs and answers 200)."""
        if self._engine.scheduler.pool.try_reset():
            await request.respond(200, b"")
            return
        message = "Some KV blocks are in use: wait for running requests before resetting."
        raise ApiError(HTTPStatus.CONFLICT, message, "Conflict")

    async def _render_metrics(self, request: Request) -> None:
        await request.respond(200, self._metrics.render(), b"text/plain; version=0.0.4; charset=utf-8")

    async def _version(self, request: Request) -> None:
        await request.respond(200, msgspec.json.encode({"version": VERSION}))

    async def _empty(self, request: Request) -> None:
        await request.respond(200, b"")

    def _heading(self, prefix: str, body: GenerateBody, request: Request) -> Heading:
        name = request.headers.get("x-request-id") or body.request_id or uuid4().hex
        model = body.model or self._frontend.model.served_name
        return Heading(f"{prefix}-{name}", int(time.time()), model)


async def _stream(request: Request, body: GenerateBody, generation: Generation, shape: StreamShape) -> None:
    options = body.stream_options
    with_usage = options is not None and bool(options.include_usage)
    every_chunk = with_usage and options is not None and bool(options.continuous_usage_stats)
    opened = False
    await request.start_stream()
    while not all(choice.sent_tokens >= choice.request.output_tokens for choice in generation.choices):
        if not await generation.wait():
            await request.write(b"data: %s\n\n" % engine_stopped().body() + DONE, more=False)
            return
        chunks = [] if opened else [shape.opening(generation.choices)]
        opened = True
        for choice in generation.due():
            deltas = choice.take()
            chunks.append(shape.chunks(choice, deltas, usage_of(generation) if every_chunk else None))
        if chunk := b"".join(chunks):
            await request.write(chunk)
    last = shape.usage(usage_of(generation)) if with_usage else b""
    await request.write(last + DONE, more=False)


async def _abort_on_disconnect(request: Request, generation: Generation) -> None:
    await request.wait_disconnect()
    generation.abort()

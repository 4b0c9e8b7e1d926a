"""Requests that belong to no session: models, embeddings, health, adapters, whatever a backend learns next.

Owns where they go, and the one list that all backends' models make. They go once more, elsewhere, only where
that cannot do anything twice: nothing was sent, or the method asks for nothing to be done.
"""

import asyncio
from collections.abc import AsyncIterator
from urllib.parse import unquote

from marsproxy import outbound
from marsproxy.backend import Backend
from marsproxy.backend_models import MAX_MODELS_BYTES, MODELS_PATH, union
from marsproxy.backends import Backends
from marsproxy.client import Client
from marsproxy.config import Config
from marsproxy.failures import may_be_repeated, refusal_of
from marsproxy.tenants.door import Caller
from marsproxy.upstream import RawHeaders, UpstreamAnswer, UpstreamError, UpstreamTimeout
from marsproxy.wire.requests import model_of as named_in

SMALL_BODY_BYTES = 1 << 20
"""Bodies up to this are read whole, so that a stale connection can be retried."""
JSON_HEAD = (b"content-type", b"application/json")

Body = bytes | AsyncIterator[bytes] | None


Listed = tuple[int, bytes] | UpstreamError
"""Status and body, or why there is none."""


class NoBackend(Exception):
    """None is known."""


def model_of(path: str, body: Body) -> str | None:
    """That the request is about; None if it does not say, or not where we look."""
    if path.startswith(MODELS_PATH + "/"):
        return unquote(path.removeprefix(MODELS_PATH + "/"))
    if not isinstance(body, bytes):
        return None
    return named_in(body)


class Untracked:
    def __init__(self, config: Config, backends: Backends) -> None:
        self._config = config
        self._backends = backends
        key = config.backend.api_key
        self._api_key = None if key is None else key.reveal()

    async def read_body(self, client: Client, caller: Caller) -> Body:
        """
        Raises:
            NotAdmitted: the caller may not use that model.
        """
        listen, length = self._config.listen, client.content_length
        timeout_s = listen.body_timeout_s
        if length is None and client.header(b"transfer-encoding") is None:
            return None
        if caller.models is not None:  # which of them is meant is in there
            body = await client.read_body(listen.max_body_bytes, timeout_s)
            caller.check_model(named_in(body))
            return body
        if length is not None and length <= SMALL_BODY_BYTES:
            return await client.read_body(SMALL_BODY_BYTES, timeout_s)
        return client.stream_body(timeout_s)

    async def answer(self, client: Client, target: str, body: Body, caller: Caller) -> None:
        """
        Raises:
            NoBackend, UpstreamError
        """
        path = target.partition("?")[0]
        if client.method == "GET" and path == MODELS_PATH and len(self._backends) > 1:
            await self._list_models(client, target, caller)
            return
        model = self._backends.served(model_of(path, body)) if len(self._backends) > 1 else None
        backend = self._backends.for_untracked(model)
        if backend is None:
            raise NoBackend
        try:
            await self._exchange(client, backend, target, body, caller)
        except UpstreamError as exc:
            other = self._backends.for_untracked(model, but=backend.name)
            is_whole = isinstance(body, bytes | None)  # a stream has been read, in part at least
            if client.is_answering or not is_whole or not may_be_repeated(exc, client.method):
                raise
            if other is None or not other.can_take(model):
                raise
            backend.metrics.failed(refusal_of(exc).code)
            await self._exchange(client, other, target, body, caller)

    def _headers(self, client: Client, caller: Caller, *, keeps_length: bool = False) -> RawHeaders:
        return outbound.to_backend(
            client.headers, api_key=self._api_key, keeps_length=keeps_length, is_tenants=caller.is_named
        )

    async def _exchange(
        self, client: Client, backend: Backend, target: str, body: Body, caller: Caller
    ) -> None:
        headers = self._headers(client, caller, keeps_length=not isinstance(body, bytes | None))
        with backend.attempt():
            answer = await backend.upstream.send(client.method, target, headers, body)
            try:
                backend.answered(answer.status)
                await client.start(answer.status, answer.headers)
                async for chunk in answer.chunks():
                    await client.write(chunk)
                backend.began(answer.status)
                await client.finish()
            finally:
                answer.close()

    # -- the models of all ------------------------------------------------------------------------

    async def _list_models(self, client: Client, target: str, caller: Caller) -> None:
        """What all that answer serve; if none does, what the first of them says."""
        headers = [
            (name, value) for name, value in self._headers(client, caller) if name != b"accept-encoding"
        ]
        async with asyncio.TaskGroup() as group:
            asking = [group.create_task(self._ask(backend, target, headers)) for backend in self._backends]
        answers = [task.result() for task in asking]
        bodies = [answer[1] for answer in answers if isinstance(answer, tuple) and answer[0] == 200]
        if not bodies:
            first = next((each for each in answers if isinstance(each, tuple)), answers[0])
            if isinstance(first, UpstreamError):
                raise first
            bodies, status = [first[1]], first[0]
        else:
            status = 200
        body = bodies[0] if len(bodies) == 1 else union(bodies)
        await client.start(status, [JSON_HEAD, (b"content-length", str(len(body)).encode())])
        await client.finish(body)

    async def _ask(self, backend: Backend, target: str, headers: RawHeaders) -> "Listed":
        try:
            async with asyncio.timeout(self._config.backend.telemetry_timeout_s):
                answer = await backend.upstream.send("GET", target, headers, None)
                try:
                    return answer.status, await _whole(answer)
                finally:
                    answer.close()
        except TimeoutError:
            return UpstreamTimeout(backend.name, "does not list its models in time")
        except UpstreamError as exc:
            return exc


async def _whole(answer: UpstreamAnswer) -> bytes:
    parts, size = [], 0
    async for chunk in answer.chunks():
        parts.append(chunk)
        size += len(chunk)
        if size > MAX_MODELS_BYTES:
            return b""
    return b"".join(parts)

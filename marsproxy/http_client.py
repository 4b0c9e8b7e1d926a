"""The HTTP client for all that is no request of an agent.

httpx over aiohttp, with one gap of the two closed: a connection that ends between head and body is a
``RuntimeError`` in aiohttp (3.14), which httpx's transport passes on, and whoever asks a backend how it is
would stop asking.
"""

from collections.abc import AsyncIterator

import httpx
from httpx_aiohttp import AiohttpTransport


def client(timeout_s: float) -> httpx.AsyncClient:
    return httpx.AsyncClient(transport=SoundTransport(AiohttpTransport()), timeout=timeout_s, trust_env=False)


class SoundTransport(httpx.AsyncBaseTransport):
    """Fails with nothing but ``httpx.TransportError``.

    Args:
        inner: does the work.
    """

    def __init__(self, inner: httpx.AsyncBaseTransport) -> None:
        self._inner = inner

    async def handle_async_request(self, request: httpx.Request) -> httpx.Response:
        try:
            response = await self._inner.handle_async_request(request)
        except RuntimeError as exc:
            raise httpx.ReadError(str(exc)) from exc
        assert isinstance(response.stream, httpx.AsyncByteStream)
        response.stream = _SoundStream(response.stream)
        return response

    async def aclose(self) -> None:
        await self._inner.aclose()


class _SoundStream(httpx.AsyncByteStream):
    def __init__(self, inner: httpx.AsyncByteStream) -> None:
        self._inner = inner

    async def __aiter__(self) -> AsyncIterator[bytes]:
        try:
            async for part in self._inner:
                yield part
        except RuntimeError as exc:
            raise httpx.ReadError(str(exc)) from exc

    async def aclose(self) -> None:
        await self._inner.aclose()

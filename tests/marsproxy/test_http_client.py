"""Whatever a connection does, whoever asked is told in httpx's words."""

from collections.abc import AsyncIterator

import httpx
import pytest

from marsproxy.http_client import SoundTransport


class Ending(httpx.AsyncByteStream):
    """A connection that ends between head and body."""

    async def __aiter__(self) -> AsyncIterator[bytes]:
        yield b"a part"
        raise RuntimeError("Connection closed.")


class Ends(httpx.AsyncBaseTransport):
    def __init__(self, *, after_head: bool) -> None:
        self._after_head = after_head

    async def handle_async_request(self, request: httpx.Request) -> httpx.Response:
        if not self._after_head:
            raise RuntimeError("Connection closed.")
        return httpx.Response(200, stream=Ending())


@pytest.mark.parametrize("after_head", [False, True])
async def test_a_connection_that_ends_is_a_read_error(after_head: bool) -> None:
    async with httpx.AsyncClient(transport=SoundTransport(Ends(after_head=after_head))) as client:
        with pytest.raises(httpx.ReadError, match="closed"):
            await client.get("http://backend/metrics")

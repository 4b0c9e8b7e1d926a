"""Answers whose body comes as it is made.

Owns stopping and closing what makes it, whichever side ends first: a generator that is left at a ``yield``
would keep its reads and handles until the garbage is collected, and one that is cancelled again and again, as
Starlette's own streams are, could not close them.
"""

import asyncio
from collections.abc import AsyncGenerator, Mapping

from starlette.responses import StreamingResponse
from starlette.types import Receive, Scope, Send


class StreamedResponse(StreamingResponse):
    def __init__(
        self, body: AsyncGenerator[bytes, None], status: int, headers: Mapping[str, str], media_type: str
    ) -> None:
        super().__init__(body, status, headers, media_type)
        self._body = body

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        try:
            async with asyncio.TaskGroup() as group:
                sending = group.create_task(self.stream_response(send))
                leaving = group.create_task(self.listen_for_disconnect(receive))
                sending.add_done_callback(lambda _: leaving.cancel())
                leaving.add_done_callback(lambda _: sending.cancel())
        finally:
            await self._body.aclose()


async def begun(body: AsyncGenerator[bytes, None]) -> AsyncGenerator[bytes, None]:
    """The same body after its first piece was made, so that what fails at once can still be answered."""
    try:
        first = await anext(body)
    except StopAsyncIteration:
        first = b""
    return _resumed(first, body)


async def _resumed(first: bytes, body: AsyncGenerator[bytes, None]) -> AsyncGenerator[bytes, None]:
    try:
        yield first
        async for piece in body:
            yield piece
    finally:
        await body.aclose()

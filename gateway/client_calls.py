"""One HTTP call to a gateway, sent again where that is safe.

Owns patience: what may be sent again, when and how long; and errors in words for users. It must not know
what is asked for.

Sent again after a broken connection or a 503 is only what has the same effect twice as once (``is_safe``):
reads, PUT, DELETE, and what carries an Idempotency-Key or an offset. A 429 says that nothing was done, so
anything may be sent again after one. A gateway that never answered is given up at once: more likely its
address is wrong.
"""

import asyncio
import time
from collections.abc import AsyncIterator, Mapping
from contextlib import asynccontextmanager

import httpx
import msgspec

from gateway.protocol import ErrorBody, ErrorDetail

_TIMEOUT = httpx.Timeout(10.0, read=100.0)
"""Reading: the longest long poll (60 s) and a busy gateway."""
_FIRST_PAUSE_S = 0.1
_LONGEST_PAUSE_S = 3.0
_WAITED_ENOUGH = "lease_rejected"
"""Code of a 429 after the wait that was asked for: once more would be longer than that."""

Params = Mapping[str, str | int | float]


class GatewayError(Exception):
    """The message is for the user."""


class Unreachable(GatewayError):
    """No answer came, or none of a gateway."""


class Refused(GatewayError):
    def __init__(self, status: int, error: ErrorDetail) -> None:
        super().__init__(error.message)
        self.status = status
        self.code = error.code
        self.param = error.param


class Calls:
    """Use as an async context manager."""

    def __init__(
        self, url: str, token: str | None, patience_s: float, transport: httpx.AsyncBaseTransport | None
    ) -> None:
        headers = {} if token is None else {"Authorization": f"Bearer {token}"}
        self._http = httpx.AsyncClient(base_url=url, headers=headers, timeout=_TIMEOUT, transport=transport)
        self._patience_s = patience_s
        self._has_answered = False

    async def close(self) -> None:
        await self._http.aclose()

    async def send(
        self,
        method: str,
        path: str,
        *,
        content: bytes | AsyncIterator[bytes] | None = None,
        params: Params | None = None,
        headers: Mapping[str, str] | None = None,
        is_safe: bool | None = None,
    ) -> httpx.Response:
        """Any answer that is no refusal. Raises GatewayError. ``is_safe``: by default, all but POST."""
        if is_safe is None:
            is_safe = method != "POST" and not isinstance(content, AsyncIterator)
        deadline_s = time.monotonic() + self._patience_s
        pause_s = _FIRST_PAUSE_S
        while True:
            try:
                response = await self._http.request(
                    method, path, content=content, params=params, headers=headers
                )
            except httpx.HTTPError as error:
                may_retry = is_safe and self._has_answered
                failure: GatewayError = self._unreachable(error)
            else:
                self._has_answered = True
                if response.is_success:
                    return response
                failure = refused(response)
                may_retry = _says_again(failure, is_safe=is_safe)
                pause_s = max(pause_s, _retry_after_s(response))
            if not may_retry or time.monotonic() + pause_s > deadline_s:
                raise failure
            await asyncio.sleep(pause_s)
            pause_s = min(2 * pause_s, _LONGEST_PAUSE_S)

    @asynccontextmanager
    async def stream(
        self,
        method: str,
        path: str,
        *,
        params: Params | None = None,
        headers: Mapping[str, str] | None = None,
    ) -> AsyncIterator[httpx.Response]:
        """An answer whose body is read as it comes; not sent again. Raises GatewayError."""
        try:
            async with self._http.stream(method, path, params=params, headers=headers) as response:
                if not response.is_success:
                    await response.aread()
                    raise refused(response)
                self._has_answered = True
                yield response
        except httpx.HTTPError as error:
            raise self._unreachable(error) from error

    def _unreachable(self, error: httpx.HTTPError) -> Unreachable:
        return Unreachable(f"{self._http.base_url} does not answer: {type(error).__name__}")


def refused(response: httpx.Response) -> GatewayError:
    try:
        error = msgspec.json.decode(response.content, type=ErrorBody).error
    except msgspec.DecodeError:
        return Unreachable(f"status {response.status_code}, which no gateway answers")
    return Refused(response.status_code, error)


def _says_again(failure: GatewayError, *, is_safe: bool) -> bool:
    if not isinstance(failure, Refused):
        return False
    if failure.status == 429:
        return failure.code != _WAITED_ENOUGH
    return is_safe and failure.status == 503


def _retry_after_s(response: httpx.Response) -> float:
    try:
        return float(response.headers.get("Retry-After", 0))
    except ValueError:  # A date, which a gateway does not send.
        return 0.0

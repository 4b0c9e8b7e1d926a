"""One chat completion as an ordinary OpenAI client makes it: timeouts, retries, streaming.

Retries are those of OpenAI's own Python client (version 2.25): two, on 408, 409, 429, 5xx and on
connections that fail before an answer, waiting as ``Retry-After`` says. An answer that breaks after
it began is a failure, not a retry. Nothing that was sent or received is ever logged.
"""

import asyncio
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from random import Random

import aiohttp
import httpx
from httpx_aiohttp import AiohttpTransport

from loadgen.sse import Answer, BrokenAnswerError, SseReader, read_json_answer

MAX_RETRIES = 2
FIRST_DELAY_S = 0.5
LONGEST_DELAY_S = 8.0
LONGEST_RETRY_AFTER_S = 60.0
"""A longer Retry-After is not honoured, as in OpenAI's client."""
RETRIED_STATUSES = frozenset({408, 409, 429})
CONNECT_TIMEOUT_S = 30.0
"""A thousand connections opened at once take seconds to be accepted on a small machine."""
READ_TIMEOUT_S = 600.0
"""Between two bytes: the default of OpenAI's client."""
KEEPALIVE_S = 4.0
"""Below vLLM's 5 s, so that a kept connection is not closed under a request on its way."""


class TurnError(Exception):
    """The turn got no whole answer; the message goes into the record, so it holds no text of ours."""

    def __init__(self, reason: str, *, status: int | None = None) -> None:
        self.status = status
        super().__init__(reason)


@dataclass(slots=True)
class Exchange:
    """What one turn saw. Filled as it goes, so that a failure keeps what was measured before it."""

    sent_s: float
    retries: int = 0
    status: int | None = None
    headers: Mapping[str, str] = field(default_factory=dict)
    first_token_s: float | None = None
    last_token_s: float | None = None
    answer: Answer | None = None


def open_http_client(api_key: str | None = None, read_timeout_s: float = READ_TIMEOUT_S) -> httpx.AsyncClient:
    """As many connections as there are requests, like that many agents would have."""

    def session() -> aiohttp.ClientSession:
        connector = aiohttp.TCPConnector(limit=0, keepalive_timeout=KEEPALIVE_S)
        return aiohttp.ClientSession(connector=connector, cookie_jar=aiohttp.DummyCookieJar())

    headers = {"content-type": "application/json", "user-agent": "OpenAI/Python 2.25.0 (loadgen)"}
    if api_key:
        headers["authorization"] = f"Bearer {api_key}"
    timeout = httpx.Timeout(read_timeout_s, connect=CONNECT_TIMEOUT_S, pool=None)
    return httpx.AsyncClient(transport=AiohttpTransport(client=session), headers=headers, timeout=timeout)


class ChatClient:
    def __init__(self, http: httpx.AsyncClient, url: str, *, clock: Callable[[], float], seed: int) -> None:
        self._http = http
        self._url = url
        self._clock = clock
        self._rng = Random(f"retries/{seed}")

    async def complete(
        self, body: bytes, *, stream: bool, headers: dict[str, str], exchange: Exchange
    ) -> Answer:
        """The whole answer, after retries; ``TurnError`` says why there is none."""
        while True:
            attempt = headers | {"x-stainless-retry-count": str(exchange.retries)}
            try:
                answer, delay_s = await self._attempt(body, stream, attempt, exchange)
            except (httpx.HTTPError, aiohttp.ClientError, TimeoutError, OSError) as exc:
                if exchange.status is not None or exchange.retries == MAX_RETRIES:
                    raise TurnError(f"connection: {type(exc).__name__}", status=exchange.status) from exc
                answer, delay_s = None, self._delay_s(exchange.retries, None)
            except BrokenAnswerError as exc:
                raise TurnError(f"answer: {exc}", status=exchange.status) from exc
            if answer is not None:
                return answer
            await asyncio.sleep(delay_s)
            exchange.retries += 1
            exchange.status = None

    async def _attempt(
        self, body: bytes, stream: bool, headers: dict[str, str], exchange: Exchange
    ) -> tuple[Answer | None, float]:
        """The answer, or how long to wait before the next attempt."""
        async with self._http.stream("POST", self._url, content=body, headers=headers) as response:
            exchange.status, exchange.headers = response.status_code, response.headers
            if response.status_code == 200:
                read = self._read_stream if stream else self._read_whole
                return await read(response, exchange), 0.0
            if not is_retried(response.status_code) or exchange.retries == MAX_RETRIES:
                raise TurnError(f"HTTP {response.status_code}", status=response.status_code)
            return None, self._delay_s(exchange.retries, response.headers.get("retry-after"))

    async def _read_stream(self, response: httpx.Response, exchange: Exchange) -> Answer:
        reader = SseReader()
        exchange.answer = reader.answer
        async for data in response.aiter_bytes():
            outputs_before = reader.answer.outputs
            try:
                reader.feed(data)
            finally:
                # Tokens count even if what follows them in the same piece is broken.
                if reader.answer.outputs > outputs_before:
                    self._note_tokens(exchange)
        answer = reader.finish()
        if exchange.last_token_s is None:
            # No visible token, as when all of them were special ones: the end is all there is to time.
            self._note_tokens(exchange)
        return answer

    def _note_tokens(self, exchange: Exchange) -> None:
        exchange.last_token_s = self._clock()
        if exchange.first_token_s is None:
            exchange.first_token_s = exchange.last_token_s

    async def _read_whole(self, response: httpx.Response, exchange: Exchange) -> Answer:
        answer = read_json_answer(await response.aread())
        # The first token of an answer that comes whole is seen with its last.
        self._note_tokens(exchange)
        exchange.answer = answer
        return answer

    def _delay_s(self, retries: int, retry_after: str | None) -> float:
        asked = seconds(retry_after)
        if asked is not None and 0 < asked <= LONGEST_RETRY_AFTER_S:
            return asked
        return float(min(FIRST_DELAY_S * 2**retries, LONGEST_DELAY_S) * (1 - 0.25 * self._rng.random()))


def is_retried(status: int) -> bool:
    return status in RETRIED_STATUSES or status >= 500


def seconds(text: str | None) -> float | None:
    try:
        return float(text) if text is not None else None
    except ValueError:
        return None

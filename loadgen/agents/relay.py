"""Between the agents and the target: passes bytes on as they are, and notes when what happened.

Each agent gets an address of its own (``/SESSION/v1``), so that turns are told apart without any id from the
framework; the target sees the path and the headers of an ordinary client. Nothing of a body is changed, and
nothing is kept of it but counts. A turn that failed and is sent again is one turn with a retry.
"""

import hashlib
from collections.abc import Callable
from contextlib import suppress
from dataclasses import dataclass, field

import aiohttp
from aiohttp import web

from loadgen.agent import note
from loadgen.client import CONNECT_TIMEOUT_S, KEEPALIVE_S, Exchange
from loadgen.records import SessionRecord, TurnRecord
from loadgen.sse import BrokenAnswerError, SseReader, read_json_answer

MAX_BODY_BYTES = 64 << 20
HOP_BY_HOP = frozenset(
    {"connection", "keep-alive", "te", "trailer", "transfer-encoding", "upgrade", "host", "content-length"}
)
"""RFC 9110, section 7.6.1, and what the client and the server of each hop set themselves."""
SHUTDOWN_S = 1.0
"""For requests that are still open when the run is over: nobody waits for them any more."""
ANSWERING = "/chat/completions"


@dataclass(slots=True, eq=False)
class Agent:
    """What is known of one agent's turns."""

    record: SessionRecord
    turns: int = 0
    latest: TurnRecord | None = None
    latest_digest: bytes = b""
    open_turns: list[TurnRecord] = field(default_factory=list)

    def turn(self, body: bytes, now_s: float) -> TurnRecord:
        """A new one; or the one before, if that failed and this is the same request again."""
        digest = hashlib.sha256(body).digest()
        if self.latest is not None and self.latest.error is not None and digest == self.latest_digest:
            self.latest.error, self.latest.retries = None, self.latest.retries + 1
            return self.latest
        if self.latest is not None and self.latest.tool is not None:
            self.latest.tool_end_s = now_s
        self.turns += 1
        self.latest_digest = digest
        self.latest = TurnRecord(
            session=self.record.session,
            turn=self.turns,
            is_continuation=self.turns > 1,
            due_s=self.record.arrival_s if self.turns == 1 else now_s,
            sent_s=now_s,
        )
        self.open_turns.append(self.latest)
        return self.latest


class Relay:
    """``records`` of turns go out when their agent is over or asks for the next."""

    def __init__(
        self, target: str, clock: Callable[[], float], on_turn: Callable[[TurnRecord], None], timeout_s: float
    ) -> None:
        self._target, self._clock, self._on_turn, self._timeout_s = target, clock, on_turn, timeout_s
        self._agents: dict[str, Agent] = {}
        self.url = ""

    async def __aenter__(self) -> "Relay":
        timeout = aiohttp.ClientTimeout(None, sock_connect=CONNECT_TIMEOUT_S, sock_read=self._timeout_s)
        self._http = aiohttp.ClientSession(
            connector=aiohttp.TCPConnector(limit=0, keepalive_timeout=KEEPALIVE_S),
            cookie_jar=aiohttp.DummyCookieJar(),
            timeout=timeout,
            auto_decompress=False,
        )
        app = web.Application(client_max_size=MAX_BODY_BYTES)
        app.router.add_route("*", "/{session}/v1/{path:.*}", self._pass_on)
        self._runner = web.AppRunner(
            app, access_log=None, handler_cancellation=True, shutdown_timeout=SHUTDOWN_S
        )
        await self._runner.setup()
        site = web.TCPSite(self._runner, "127.0.0.1", 0)
        await site.start()
        host, port = self._runner.addresses[0][:2]
        self.url = f"http://{host}:{port}"
        return self

    async def __aexit__(self, *_: object) -> None:
        await self._runner.cleanup()
        await self._http.close()

    def open(self, record: SessionRecord) -> str:
        """The base URL of the agent, with ``/v1``."""
        self._agents[record.session] = Agent(record)
        return f"{self.url}/{record.session}/v1"

    def close(self, session: str) -> None:
        """The agent is over: what it asks from now on is refused."""
        agent = self._agents.pop(session)
        self._hand_out(agent)

    def _hand_out(self, agent: Agent, but: TurnRecord | None = None) -> None:
        for turn in agent.open_turns:
            if turn is not but:
                self._on_turn(turn)
        agent.open_turns = [] if but is None else [but]

    async def _pass_on(self, request: web.Request) -> web.StreamResponse:
        agent = self._agents.get(request.match_info["session"])
        if agent is None:
            return web.Response(status=404, text="no such agent")
        body, path = await request.read(), "/" + request.match_info["path"]
        if request.method != "POST" or not path.endswith(ANSWERING):
            return await self._exchange(request, path, body, None)
        turn = agent.turn(body, self._clock())
        self._hand_out(agent, but=turn)
        try:
            return await self._exchange(request, path, body, Answered(turn, agent, self._clock))
        except BaseException as exc:
            turn.error = turn.error or f"connection: {type(exc).__name__}"
            raise

    async def _exchange(
        self, request: web.Request, path: str, body: bytes, answered: "Answered | None"
    ) -> web.StreamResponse:
        headers = [(name, value) for name, value in request.headers.items() if name.lower() not in HOP_BY_HOP]
        try:
            async with self._http.request(
                request.method, f"{self._target}/v1{path}", headers=headers, data=body, params=request.query
            ) as upstream:
                if answered is not None:
                    answered.began(upstream)
                response = web.StreamResponse(status=upstream.status, reason=upstream.reason)
                for name, value in upstream.headers.items():
                    if name.lower() not in HOP_BY_HOP:
                        response.headers.add(name, value)
                await response.prepare(request)
                async for chunk in upstream.content.iter_any():
                    if answered is not None:
                        answered.feed(chunk)
                    await response.write(chunk)
                if answered is not None:
                    answered.ended()
                await response.write_eof()
                return response
        except (aiohttp.ClientError, TimeoutError) as exc:
            if answered is not None:
                answered.turn.error = f"connection: {type(exc).__name__}"
            return web.Response(status=502, text="the target did not answer")


class Answered:
    """Reads along with one answer."""

    def __init__(self, turn: TurnRecord, agent: Agent, clock: Callable[[], float]) -> None:
        self.turn, self._agent, self._clock = turn, agent, clock
        self._exchange = Exchange(sent_s=turn.sent_s)
        self._reader: SseReader | None = None
        self._body = bytearray()

    def began(self, upstream: aiohttp.ClientResponse) -> None:
        self._exchange.status, self._exchange.headers = upstream.status, upstream.headers
        if upstream.status != 200:
            self.turn.error = f"HTTP {upstream.status}"
        elif upstream.content_type == "text/event-stream":
            self._reader = SseReader()

    def feed(self, chunk: bytes) -> None:
        if self.turn.error is not None:
            return
        if self._reader is None:
            self._body += chunk
            return
        before = self._reader.answer.outputs
        with suppress(BrokenAnswerError):
            self._reader.feed(chunk)
        if self._reader.answer.outputs > before and self._exchange.first_token_s is None:
            self._exchange.first_token_s = self._clock()

    def ended(self) -> None:
        """An answer that comes whole has no time of its first token."""
        retries = self.turn.retries
        if self.turn.error is None:
            try:
                reader = self._reader
                self._exchange.answer = (
                    reader.finish() if reader is not None else read_json_answer(bytes(self._body))
                )
                self._exchange.last_token_s = self._clock()
            except BrokenAnswerError as exc:
                self.turn.error = f"answer: {exc}"
        note(self.turn, self._exchange)
        self.turn.retries = retries
        if self.turn.error is None:
            self._count()

    def _count(self) -> None:
        turn, record, answer = self.turn, self._agent.record, self._exchange.answer
        if answer is not None and answer.tools:
            turn.tool, turn.tool_start_s = answer.tools[0].name, turn.last_token_s
        record.turns_completed += 1
        record.prompt_tokens += turn.prompt_tokens or 0
        record.cached_tokens += turn.cached_tokens or 0
        record.output_tokens += turn.output_tokens or 0
        record.end_s = turn.last_token_s

"""The way of one request through the proxy: read, admit, forward, pass back, end.

Owns the order of these steps and the single ending of every turn. What the client sent goes out as it
came, but for the documented additions; what the backend answers goes back as it comes. A request that
is not understood passes through untouched: refusing it is the backend's business.
"""

import asyncio
import logging
from collections.abc import AsyncIterator, Mapping
from dataclasses import dataclass

from marsproxy import errors, outbound
from marsproxy.client import BodyTooLarge, BodyTooSlow, Client, ClientGone
from marsproxy.config import Config
from marsproxy.core.commands import ForwardTurn
from marsproxy.core.events import Ending
from marsproxy.core.evidence import Schema
from marsproxy.dispatcher import Dispatcher, Refused, Turn
from marsproxy.http_limits import LINGER_S
from marsproxy.metrics import Metrics
from marsproxy.patch import BackendPatch
from marsproxy.tasks import TaskOwner
from marsproxy.upstream import (
    RawHeaders,
    Upstream,
    UpstreamAnswer,
    UpstreamBroke,
    UpstreamError,
    UpstreamTimeout,
)
from marsproxy.wire.answers import AnswerRead, AnswerReader
from marsproxy.wire.forms import NormalForms
from marsproxy.wire.requests import read_request, split_session_url, tracked_schema
from marsproxy.wire.splice import UsageStripper, add_xargs, ask_usage

log = logging.getLogger(__name__)

SMALL_BODY_BYTES = 1 << 20
"""Untracked bodies up to this are read whole, so that a stale connection can be retried."""
PROGRESS_TOKENS = 256
"""Generated tokens between two reports of how far a turn is: a context of tens of thousands grows by less
than a hundredth, and what watching for it costs is one comparison a chunk."""
HOLD_COMMENT = b": held\n\n"
"""A server-sent-events comment: clients ignore it, everything on the way sees life."""
EVENT_STREAM_HEAD: RawHeaders = [
    (b"content-type", b"text/event-stream; charset=utf-8"),
    (b"cache-control", b"no-cache"),
]


@dataclass(slots=True)
class Outcome:
    """How a turn is going; what it is when the turn is let go is how it ended."""

    ending: Ending = Ending.ABORTED
    answer: AnswerRead | None = None
    has_first_token: bool = False
    is_told: bool = False

    def settle(self, answer: AnswerRead, status: int) -> None:
        is_whole = answer.is_complete or answer.finish_reason is not None
        self.ending = Ending.FINISHED if status < 400 and is_whole and not answer.has_error else Ending.FAILED
        self.answer = answer


class Relay:
    """Answers every request that goes to a backend."""

    def __init__(
        self,
        config: Config,
        upstreams: Mapping[str, Upstream],
        patches: Mapping[str, BackendPatch],
        dispatcher: Dispatcher,
        normal_forms: NormalForms,
        metrics: Metrics,
        tasks: TaskOwner,
    ) -> None:
        self._config = config
        self._upstreams = upstreams
        self._patches = patches
        self._dispatcher = dispatcher
        self._normal_forms = normal_forms
        self._metrics = metrics
        self._tasks = tasks
        key = config.backend.api_key
        self._api_key = None if key is None else key.reveal()

    async def handle(self, client: Client) -> None:
        """Answer one request."""
        url_session, path = split_session_url(client.path)
        schema = tracked_schema(client.method, path)
        target = f"{path}?{client.query}" if client.query else path
        try:
            if not target.startswith("/"):  # OPTIONS * means the server itself, so it ends here
                await refuse(client, schema, errors.bad_request("bad_target", "the target is no path"))
            elif schema is None:
                await self._pass_through(client, target)
            else:
                await self._relay_turn(client, schema, target, url_session)
        except ClientGone:
            client.cut()
        except BodyTooLarge:
            await refuse(client, schema, errors.body_too_large(self._config.listen.max_body_bytes))
        except BodyTooSlow:
            await refuse(client, schema, errors.body_too_slow(self._config.listen.body_timeout_s))
        except UpstreamError as exc:
            self._metrics.backend(exc.backend).failed(_upstream_refusal(exc).code)
            if client.is_answering and not client.is_only_held:
                log.warning("%s; the client's connection is cut", exc)
                client.cut()
            else:
                await refuse(client, schema, _upstream_refusal(exc))

    # -- what belongs to no session ---------------------------------------------------------------

    async def _pass_through(self, client: Client, target: str) -> None:
        """Models, embeddings, health, adapters, and whatever the backend learns to serve next."""
        body = await self._untracked_body(client)
        async with client.watched(self._tasks, self._config.listen.write_timeout_s):
            await self._exchange(client, target, body)

    async def _untracked_body(self, client: Client) -> bytes | AsyncIterator[bytes] | None:
        timeout_s = self._config.listen.body_timeout_s
        length = client.content_length
        if length is None and client.header(b"transfer-encoding") is None:
            return None
        if length is not None and length <= SMALL_BODY_BYTES:
            return await client.read_body(SMALL_BODY_BYTES, timeout_s)
        return client.stream_body(timeout_s)

    async def _exchange(self, client: Client, target: str, body: bytes | AsyncIterator[bytes] | None) -> None:
        is_stream = not isinstance(body, bytes | None)
        headers = outbound.to_backend(client.headers, api_key=self._api_key, keeps_length=is_stream)
        upstream = next(iter(self._upstreams.values()))
        answer = await upstream.send(client.method, target, headers, body)
        try:
            await client.start(answer.status, answer.headers)
            async for chunk in answer.chunks():
                await client.write(chunk)
            await client.finish()
        finally:
            answer.close()

    # -- turns of sessions ------------------------------------------------------------------------

    async def _relay_turn(self, client: Client, schema: Schema, target: str, url_session: str | None) -> None:
        listen = self._config.listen
        body = await client.read_body(listen.max_body_bytes, listen.body_timeout_s)
        request = read_request(
            schema,
            client.headers,
            body,
            tenant=outbound.tenant_of(client.headers),
            url_session=url_session,
            normal_forms=self._normal_forms,
            extra_session_headers=self._config.identity.extra_session_headers,
        )
        if request is None:
            self._metrics.passed_unread()
            async with client.watched(self._tasks, self._config.listen.write_timeout_s):
                await self._exchange(client, target, body)
            return
        turn = self._dispatcher.arrive(request)
        outcome = Outcome()
        try:
            async with client.watched(self._tasks, self._config.listen.write_timeout_s):
                await self._run_turn(client, turn, target, body, outcome)
        except UpstreamError:
            outcome.ending = Ending.FAILED
            raise
        except Refused as exc:
            outcome.ending = Ending.FAILED
            refusal = errors.rejected(exc.reason, exc.retry_after_s)
            await refuse(client, schema, refusal, _mars_headers(turn))
        finally:
            self._end(turn, outcome)

    async def _run_turn(self, client: Client, turn: Turn, target: str, body: bytes, outcome: Outcome) -> None:
        forward = await self._wait_for_verdict(client, turn)
        headers = outbound.to_backend(client.headers, api_key=self._api_key)
        outbound.tag_turn(
            headers, forward, turn.resolution.session_id, sets_priority=turn.request.sets_priority
        )
        asking = ask_usage(body, turn.request)
        if asking is not None:
            body, headers = asking, outbound.refuse_compression(headers)
        if self._patches[forward.backend].is_working:
            body = add_xargs(body, turn.request, outbound.turn_xargs(forward, turn.resolution)) or body
        answer = await self._upstreams[forward.backend].send(client.method, target, headers, body)
        try:
            await self._pass_back(client, turn, answer, outcome, strips_usage=asking is not None)
        finally:
            answer.close()

    async def _wait_for_verdict(self, client: Client, turn: Turn) -> ForwardTurn:
        """Wait until the turn may go; show a streaming client signs of life meanwhile.

        Raises:
            Refused: it may not.
        """
        while turn.request.is_streaming and not turn.verdict.done():
            await asyncio.wait((turn.verdict,), timeout=self._config.hold.sse_comment_interval_s)
            if not turn.verdict.done():
                await client.show_life([*EVENT_STREAM_HEAD, *_mars_headers(turn)], HOLD_COMMENT)
        forward = await turn.verdict
        if client.is_only_held:
            # The header that says so has gone out already, with what was known then.
            await client.write(b": held_ms=%d\n\n" % turn.held_ms)
        return forward

    async def _pass_back(
        self, client: Client, turn: Turn, answer: UpstreamAnswer, outcome: Outcome, *, strips_usage: bool
    ) -> None:
        raw_headers = answer.headers
        headers = dict(raw_headers)
        is_stream = headers.get(b"content-type", b"").startswith(b"text/event-stream")
        length = headers.get(b"content-length", b"")
        encoding = headers.get(b"content-encoding", b"identity").decode("latin-1")
        reader = AnswerReader(
            turn.request.schema,
            is_streaming=is_stream,
            content_encoding=encoding,
            content_length=int(length) if length.isdigit() else None,
        )
        if client.is_only_held and not is_stream:
            # The client was shown an open stream while it waited, so an error must come as an event.
            parts = [chunk async for chunk in answer.chunks()]
            outcome.ending = Ending.FAILED
            await client.finish(
                errors.backend_error_event(answer.status, b"".join(parts), turn.request.schema)
            )
            return
        # Compressed against our asking: there are no events to see in it, and no reason to wait for them.
        stripper = UsageStripper() if strips_usage and is_stream and encoding == "identity" else None
        shown_headers = raw_headers if stripper is None else outbound.without_length(raw_headers)
        await client.start(answer.status, [*shown_headers, *_mars_headers(turn)])
        next_report = PROGRESS_TOKENS
        async for chunk in answer.chunks():
            reader.feed(chunk)
            if not outcome.has_first_token and reader.saw_first_token:
                outcome.has_first_token = True
                self._dispatcher.first_token(turn)
            if reader.is_at_end and not outcome.is_told:
                # Once the client has the last bytes its next turn may be here before our next line runs.
                outcome.settle(reader.finish(answer.status), answer.status)
                self._end(turn, outcome)
            elif reader.events >= next_report and not outcome.is_told:
                next_report = self._report_progress(turn, reader, chunk)
            if shown := chunk if stripper is None else stripper.feed(chunk):
                await client.write(shown)
        if not outcome.is_told:
            outcome.settle(reader.finish(answer.status), answer.status)
            self._end(turn, outcome)
        await client.finish(b"" if stripper is None else stripper.flush())

    def _report_progress(self, turn: Turn, reader: AnswerReader, chunk: bytes) -> int:
        """Returns the number of events at which to report next."""
        if self._dispatcher.progressed(turn, reader.tokens_so_far(chunk)):
            return reader.events + PROGRESS_TOKENS
        return reader.events + 1

    def _end(self, turn: Turn, outcome: Outcome) -> None:
        if not outcome.is_told:
            outcome.is_told = True
            self._dispatcher.end(turn, outcome.ending, outcome.answer)
            if turn.request.is_final:
                self._dispatcher.end_session(turn.resolution.session_id)


def _mars_headers(turn: Turn) -> RawHeaders:
    decision = "held" if turn.forward is None else turn.forward.decision
    return [
        (b"x-mars-session", turn.resolution.session_id.encode()),
        (b"x-mars-turn", str(turn.resolution.turn).encode()),
        (b"x-mars-decision", decision.encode()),
        (b"x-mars-held-ms", str(turn.held_ms).encode()),
    ]


def _upstream_refusal(failure: UpstreamError) -> errors.Refusal:
    if isinstance(failure, UpstreamTimeout):
        return errors.backend_timeout(failure.backend)
    if isinstance(failure, UpstreamBroke):
        return errors.backend_broke_off(failure.backend)
    return errors.backend_unreachable(failure.backend)


async def refuse(
    client: Client, schema: Schema | None, refusal: errors.Refusal, extra: RawHeaders | None = None
) -> None:
    """An answer of ours instead of the backend's, in the form that the client can still read."""
    if client.is_only_held and schema is not None:
        await client.finish(errors.as_event(refusal, schema))
        return
    answer = errors.as_answer(refusal, schema)
    await client.start(answer.status, [*answer.headers, *(extra or [])])
    await client.write(answer.body)
    if refusal.closes_connection:
        await client.discard_body(LINGER_S)
    await client.finish()

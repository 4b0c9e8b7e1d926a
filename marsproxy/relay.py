"""The way of one request through the proxy: read, admit, forward, pass back, end.

Owns the order of these steps and the single ending of every turn. What the client sent goes out as it
came, but for the documented additions; what the backend answers goes back as it comes. A request that
is not understood passes through untouched: refusing it is the backend's business.
"""

import asyncio
import logging
from dataclasses import dataclass

from marsproxy import errors, outbound
from marsproxy.backend import Backend
from marsproxy.backends import Backends
from marsproxy.client import BodyTooLarge, BodyTooSlow, Client, ClientGone
from marsproxy.config import Config
from marsproxy.core.commands import ForwardTurn
from marsproxy.core.events import Ending
from marsproxy.core.evidence import Schema
from marsproxy.dispatcher import Dispatcher, Leaving, Refused, Turn
from marsproxy.failures import NOT_TAKEN, NotTaken, may_go_elsewhere, refusal_of
from marsproxy.http_limits import LINGER_S
from marsproxy.metrics import Metrics
from marsproxy.tasks import TaskOwner
from marsproxy.tenants.door import Caller, Door, NotAdmitted
from marsproxy.tenants.unread import UnreadRequests
from marsproxy.untracked import NoBackend, Untracked
from marsproxy.upstream import RawHeaders, UpstreamAnswer, UpstreamError, UpstreamUnreachable
from marsproxy.wire.answers import AnswerRead, AnswerReader
from marsproxy.wire.forms import NormalForms
from marsproxy.wire.requests import read_request, split_session_url, tracked_schema
from marsproxy.wire.splice import UsageStripper, add_xargs, ask_usage

log = logging.getLogger(__name__)

PROGRESS_TOKENS = 256
"""Generated tokens between two reports of how far a turn is: a context of tens of thousands grows by less
than a hundredth, and what watching for it costs is one comparison a chunk."""
HOLD_COMMENT = b": held\n\n"
"""A server-sent-events comment: clients ignore it, everything on the way sees life."""
NO_BACKEND_RETRY_S = 5.0
"""Where none is known: a new one is seen within seconds of its start. Chosen."""
LEAVING_RETRY_S = 1.0
"""For whoever was held when the proxy stopped: another replica takes the turn at once, a single process is
back in a few seconds, and clients double their pauses by themselves."""
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
        backends: Backends,
        dispatcher: Dispatcher,
        normal_forms: NormalForms,
        metrics: Metrics,
        tasks: TaskOwner,
        door: Door | None = None,
    ) -> None:
        """
        Args:
            door: default: one that everybody may come in by.
        """
        self._door = door or Door()
        self._unread = UnreadRequests()
        self._config = config
        self._backends = backends
        self._untracked = Untracked(config, backends)
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
                await self._pass_through(client, target, path)
            else:
                await self._relay_turn(client, schema, target, url_session)
        except NotAdmitted as exc:
            self._metrics.not_admitted()
            await refuse(client, schema, exc.refusal)
        except ClientGone:
            client.cut()
        except BodyTooLarge:
            await refuse(client, schema, errors.body_too_large(self._config.listen.max_body_bytes))
        except BodyTooSlow:
            await refuse(client, schema, errors.body_too_slow(self._config.listen.body_timeout_s))
        except NoBackend:
            await refuse(client, schema, errors.backend_unavailable(None, NO_BACKEND_RETRY_S))
        except UpstreamError as exc:
            refusal = refusal_of(exc)
            self._metrics.backend(exc.backend).failed(refusal.code)
            if client.is_answering and not client.is_only_held:
                log.warning("%s; the client's connection is cut", exc)
                client.cut()
            else:
                await refuse(client, schema, refusal)

    async def _pass_through(self, client: Client, target: str, path: str) -> None:
        """What belongs to no session."""
        caller = self._door.admit(client.headers)
        caller.check_path(client.method, path)
        with self._unread.one(caller):
            body = await self._untracked.read_body(client, caller)
            async with client.watched(self._tasks, self._config.listen.write_timeout_s):
                await self._untracked.answer(client, target, body, caller)

    # -- turns of sessions ------------------------------------------------------------------------

    async def _relay_turn(self, client: Client, schema: Schema, target: str, url_session: str | None) -> None:
        caller = self._door.admit(client.headers)  # before the body: a stranger's is not worth its memory
        listen = self._config.listen
        body = await client.read_body(listen.max_body_bytes, listen.body_timeout_s)
        request = read_request(
            schema,
            client.headers,
            body,
            tenant=caller.tenant,
            url_session=url_session,
            normal_forms=self._normal_forms,
            extra_session_headers=self._config.identity.extra_session_headers,
        )
        caller.check_request(request)
        if request is None:
            self._metrics.passed_unread()
            async with client.watched(self._tasks, self._config.listen.write_timeout_s):
                await self._untracked.answer(client, target, body, caller)
            return
        turn = self._dispatcher.arrive(request, self._backends.served(request.model))
        outcome = Outcome()
        try:
            async with client.watched(self._tasks, self._config.listen.write_timeout_s):
                await self._run_turn(client, turn, target, body, outcome, caller)
        except UpstreamError:
            outcome.ending = Ending.FAILED
            raise
        except Refused as exc:
            outcome.ending = Ending.FAILED
            refusal = errors.rejected(exc.reason, exc.retry_after_s)
            await refuse(client, schema, refusal, _mars_headers(turn))
        except Leaving:
            outcome.ending = Ending.FAILED
            await refuse(client, schema, errors.leaving(LEAVING_RETRY_S), _mars_headers(turn))
        finally:
            self._end(turn, outcome)

    async def _run_turn(
        self, client: Client, turn: Turn, target: str, body: bytes, outcome: Outcome, caller: Caller
    ) -> None:
        """Until a backend has taken it, or none is left."""
        failures_left = self._config.backend.failovers
        while True:
            forward = await self._wait_for_verdict(client, turn)
            name, backend = forward.backend, self._backends.get(forward.backend)
            if self._should_pass_by(backend, turn):
                self._bounce(turn, name)
                continue
            if backend is None:
                raise UpstreamUnreachable(name, "is not known here", may_have_begun=False)
            may_bounce = failures_left > 0 and self._backends.has_other(name)
            try:
                await self._try_backend(
                    client, turn, backend, target, body, outcome, caller, may_bounce=may_bounce
                )
                return
            except NotTaken:
                failures_left -= 1
                self._bounce(turn, name)

    def _should_pass_by(self, backend: Backend | None, turn: Turn) -> bool:
        """One that is not found here yet, or whose requests fail, is not tried while another would do."""
        if backend is None:
            self._backends.look_again()
            return len(self._backends) > 0
        model = self._backends.served(turn.request.model)
        return not backend.breaker.can_take() and self._backends.other_can_take(backend.name, model)

    def _bounce(self, turn: Turn, backend: str) -> None:
        self._metrics.backend(backend).bounced()
        self._dispatcher.bounced(turn, backend)

    async def _try_backend(
        self,
        client: Client,
        turn: Turn,
        backend: Backend,
        target: str,
        body: bytes,
        outcome: Outcome,
        caller: Caller,
        *,
        may_bounce: bool,
    ) -> None:
        """
        Raises:
            NotTaken: nothing of an answer has reached the client, and another may have the turn.
            UpstreamError: it failed, and that is how the turn ends.
        """
        assert turn.forward is not None, "it has its verdict"
        headers = outbound.to_backend(client.headers, api_key=self._api_key, is_tenants=caller.is_named)
        # To vLLM the header goes before the body's member, so a tenant's own priority is of no effect.
        sets_priority = turn.request.sets_priority and not caller.is_named
        outbound.tag_turn(headers, turn.forward, turn.resolution.session_id, sets_priority=sets_priority)
        asking = ask_usage(body, turn.request)
        if asking is not None:
            body, headers = asking, outbound.refuse_compression(headers)
        if backend.patch.is_working:
            body = add_xargs(body, turn.request, outbound.turn_xargs(turn.forward, turn.resolution)) or body
        try:
            with backend.attempt():
                answer = await backend.upstream.send(client.method, target, headers, body)
                try:
                    backend.answered(answer.status)
                    if may_bounce:
                        await _begin(answer)
                    await self._pass_back(
                        client, turn, backend, answer, outcome, strips_usage=asking is not None
                    )
                finally:
                    answer.close()
        except UpstreamError as exc:
            has_begun = client.is_answering and not client.is_only_held
            if has_begun or not may_bounce or not may_go_elsewhere(exc):
                raise
            backend.metrics.failed(refusal_of(exc).code)
            raise NotTaken from exc

    async def _wait_for_verdict(self, client: Client, turn: Turn) -> ForwardTurn:
        """Wait until the turn may go; show a streaming client signs of life meanwhile.

        Raises:
            Refused: it may not.
            Leaving: it may, elsewhere.
        """
        if not turn.placed.done():
            # Not by itself: it would be cancelled with the request, and its record may come before the end.
            await asyncio.wait((turn.placed,))
        while turn.request.is_streaming and not turn.verdict.done():
            await asyncio.wait((turn.verdict,), timeout=self._config.hold.sse_comment_interval_s)
            if not turn.verdict.done():
                await client.show_life([*EVENT_STREAM_HEAD, *_mars_headers(turn)], HOLD_COMMENT)
        if not turn.verdict.done():
            await asyncio.wait((turn.verdict,))
        forward = turn.verdict.result()
        if client.is_only_held:
            # The header that says so has gone out already, with what was known then.
            await client.write(b": held_ms=%d\n\n" % turn.held_ms)
        return forward

    async def _pass_back(
        self,
        client: Client,
        turn: Turn,
        backend: Backend,
        answer: UpstreamAnswer,
        outcome: Outcome,
        *,
        strips_usage: bool,
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
                backend.began(answer.status)
                self._dispatcher.first_token(turn)
            if reader.is_at_end and not outcome.is_told:
                # Once the client has the last bytes its next turn may be here before our next line runs.
                outcome.settle(reader.finish(answer.status), answer.status)
                self._end(turn, outcome)
                await self._dispatcher.journal.settle()  # it may come to another replica, too
            elif reader.events >= next_report and not outcome.is_told:
                next_report = self._report_progress(turn, reader, chunk)
            if shown := chunk if stripper is None else stripper.feed(chunk):
                await client.write(shown)
        if not outcome.is_told:
            outcome.settle(reader.finish(answer.status), answer.status)
            self._end(turn, outcome)
            await self._dispatcher.journal.settle()
        backend.began(answer.status)
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
            if turn.request.is_final and turn.is_placed:
                self._dispatcher.end_session(turn.resolution.session_id)


def _mars_headers(turn: Turn) -> RawHeaders:
    decision = "held" if turn.forward is None else turn.forward.decision
    return [
        (b"x-mars-session", turn.resolution.session_id.encode()),
        (b"x-mars-turn", str(turn.resolution.turn).encode()),
        (b"x-mars-decision", decision.encode()),
        (b"x-mars-held-ms", str(turn.held_ms).encode()),
    ]


async def _begin(answer: UpstreamAnswer) -> None:
    """Wait for the first bytes of the body: engines send the head before they have begun.

    Raises:
        NotTaken: it is no answer to the request.
        UpstreamError
    """
    if answer.status in NOT_TAKEN:
        raise NotTaken
    await answer.begin()


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

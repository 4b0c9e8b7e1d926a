"""One request's way, cut at each wait: whatever happens there, nothing is left behind."""

import asyncio
import json
from collections.abc import AsyncIterator, Callable, Sequence
from dataclasses import dataclass, field
from typing import Any

import pytest
from prometheus_client import CollectorRegistry

from backend_patch.protocol import Capabilities
from marsproxy.backends import Backends
from marsproxy.client import Client
from marsproxy.config import Backend, Config, Hold
from marsproxy.core.commands import Command
from marsproxy.core.events import BackendObserved, Event, TurnEnded, TurnProgressed
from marsproxy.core.identity import IdentityLimits, SessionIndex
from marsproxy.core.policy import Policy
from marsproxy.core.settings import AdmissionSettings, PolicySettings
from marsproxy.core.shared_state import Happening, SharedState
from marsproxy.discovery.endpoint import Endpoint
from marsproxy.dispatcher import Dispatcher
from marsproxy.hints import Hints
from marsproxy.journal import MemoryJournal, Replica
from marsproxy.metrics import Metrics
from marsproxy.patch import BackendPatch, Finding, PatchState
from marsproxy.relay import Relay
from marsproxy.tasks import TaskOwner
from marsproxy.upstream import UpstreamBroke, UpstreamTimeout, UpstreamUnreachable
from marsproxy.wire.forms import NormalForms
from tests.marsproxy.asgi import FakeConnection

BACKEND = "http://gpu:8000"
UNARY = b'{"choices":[{"index":0,"finish_reason":"stop","message":{"role":"assistant","content":"hi"}}]}'
LAST_DELTA = b'data: {"choices":[{"index":0,"delta":{"content":"hi"},"finish_reason":"stop"}]}\n\n'
STREAM = (LAST_DELTA, b"data: [DONE]\n\n")


@dataclass
class FakeAnswer:
    upstream: "FakeUpstream"
    status: int = 200

    @property
    def headers(self) -> list[tuple[bytes, bytes]]:
        if self.upstream.fails_with_status:
            return [(b"content-type", b"application/json")]
        kind = b"text/event-stream" if len(self.upstream.chunks) > 1 else b"application/json"
        return [(b"content-type", kind)]

    async def begin(self) -> None:
        if self.upstream.stops_before_chunk == 0:
            await anext(self.chunks())

    async def chunks(self) -> AsyncIterator[bytes]:
        for number, chunk in enumerate(self.upstream.chunks):
            if number == self.upstream.stops_before_chunk:
                self.upstream.is_reached.set()
                if self.upstream.failure is not None:
                    raise self.upstream.failure
                await asyncio.Event().wait()
            yield chunk

    def close(self) -> None:
        self.upstream.open_answers -= 1


@dataclass
class FakeUpstream:
    """A backend that answers, waits for ever, or fails, where it is told to."""

    chunks: tuple[bytes, ...] = (UNARY,)
    waits_for_head: bool = False
    stops_before_chunk: int | None = None
    failure: Exception | None = None
    fails_with_status: int = 0
    open_answers: int = 0
    sent: list[tuple[str, str, dict[bytes, bytes], Any]] = field(default_factory=list)
    is_reached: asyncio.Event = field(default_factory=asyncio.Event)

    async def send(self, method: str, target: str, headers: Any, body: Any) -> FakeAnswer:
        self.sent.append((method, target, dict(headers), body))
        if self.waits_for_head:
            self.is_reached.set()
            if self.failure is not None:
                raise self.failure
            await asyncio.Event().wait()
        self.open_answers += 1
        return FakeAnswer(self, self.fails_with_status or 200)


@dataclass
class Rig:
    upstream: FakeUpstream
    relay: Relay
    dispatcher: Dispatcher
    tasks: TaskOwner
    timers: list[Callable[[], None]]
    patch: BackendPatch

    async def handle(self, connection: FakeConnection) -> None:
        async with asyncio.timeout(5):
            await self.relay.handle(Client(connection.scope, connection.receive, connection.send))

    async def assert_nothing_is_left(self) -> None:
        await asyncio.sleep(0.01)
        policy = self.dispatcher.policy
        counted = sum(len(backend.counted) for backend in policy.backends.values())
        left = (self.dispatcher.open_turns, policy.open_turns, len(policy.held), len(self.tasks))
        assert (*left, self.upstream.open_answers, counted) == (0, 0, 0, 0, 0, 0)


class TellingPolicy(Policy):
    """Keeps what it is told."""

    def __init__(self, settings: PolicySettings, backends: Sequence[str]) -> None:
        super().__init__(settings, backends)
        self.told: list[Event] = []

    def handle(self, event: Event, now: float) -> list[Command]:
        self.told.append(event)
        return super().handle(event, now)


class LateJournal(MemoryJournal):
    """Records wait for their place in the order until somebody lets them."""

    def __init__(self, replica: Replica) -> None:
        super().__init__(replica)
        self._late: list[Happening] = []

    def append(self, happening: Happening) -> None:
        self._late.append(happening)

    def catch_up(self) -> None:
        late, self._late = self._late, []
        for happening in late:
            super().append(happening)


def rig_of(
    upstream: FakeUpstream | None = None,
    clock: Callable[[], float] | None = None,
    journal: type[MemoryJournal] = MemoryJournal,
    **admission: Any,
) -> Rig:
    upstream = upstream or FakeUpstream()
    config = Config(
        backends=(BACKEND,),
        admission=AdmissionSettings(**{"idle_gap_s": 0.0} | admission),
        hold=Hold(sse_comment_interval_s=0.05),
        backend=Backend(),
    )
    metrics, tasks, timers = Metrics(CollectorRegistry()), TaskOwner(), []  # type: ignore[var-annotated]
    dispatcher = Dispatcher(
        SharedState(
            TellingPolicy(PolicySettings(config.admission, config.sessions), (BACKEND,)),
            SessionIndex(IdentityLimits(), salt=b"salt"),
        ),
        lambda replica: (
            journal(replica, clock=clock or asyncio.get_running_loop().time)
            if journal is MemoryJournal
            else journal(replica)
        ),
        metrics,
        None,
        Hints(),
        set_timer=lambda _, callback: timers.append(callback),
    )
    backends = Backends(config, metrics, Hints(), [Endpoint(BACKEND)])
    [backend] = backends
    backend.upstream = upstream  # type: ignore[assignment]
    relay = Relay(config, backends, dispatcher, NormalForms(seed=1), metrics, tasks)
    return Rig(upstream, relay, dispatcher, tasks, timers, backend.patch)


def asking(path: str = "/v1/chat/completions", **fields: Any) -> FakeConnection:
    body = json.dumps({"messages": [{"role": "user", "content": "x"}], **fields}).encode()
    return FakeConnection(path=path, content_length=str(len(body))).sends(body)


# -- each wait ------------------------------------------------------------------------------------


def reading_the_body() -> tuple[Rig, FakeConnection]:
    return rig_of(), FakeConnection(content_length="100").sends(b"{", is_whole=False)


def reading_an_untracked_body() -> tuple[Rig, FakeConnection]:
    return rig_of(), FakeConnection(path="/v1/embeddings", content_length="100").sends(b"{", is_whole=False)


def waiting_for_the_verdict() -> tuple[Rig, FakeConnection]:
    rig = rig_of(fallback_concurrency=1)
    rig.dispatcher.policy.backends[BACKEND].counted["another"] = None  # type: ignore[assignment]
    return rig, asking()


def writing_a_comment() -> tuple[Rig, FakeConnection]:
    rig, _ = waiting_for_the_verdict()
    connection = asking(stream=True)
    connection.blocks = "write"
    return rig, connection


def opening_the_held_stream() -> tuple[Rig, FakeConnection]:
    rig, connection = writing_a_comment()
    connection.blocks = "start"
    return rig, connection


def telling_how_long_it_was_held() -> tuple[Rig, FakeConnection]:
    """The comment that comes with the verdict, after those that came before it."""
    rig, connection = writing_a_comment()
    connection.blocks = None

    def make_room() -> None:
        connection.blocks = "write"
        rig.dispatcher.policy.backends[BACKEND].counted.pop("another")
        rig.dispatcher.tell(BackendObserved(BACKEND))

    asyncio.get_running_loop().call_later(0.08, make_room)
    return rig, connection


def waiting_for_the_head() -> tuple[Rig, FakeConnection]:
    return rig_of(FakeUpstream(waits_for_head=True)), asking()


def waiting_for_an_untracked_head() -> tuple[Rig, FakeConnection]:
    return rig_of(FakeUpstream(waits_for_head=True)), asking("/v1/embeddings")


def writing_the_head() -> tuple[Rig, FakeConnection]:
    connection = asking()
    connection.blocks = "start"
    return rig_of(), connection


def reading_the_first_chunk() -> tuple[Rig, FakeConnection]:
    return rig_of(FakeUpstream(stops_before_chunk=0)), asking()


def reading_a_later_chunk() -> tuple[Rig, FakeConnection]:
    return rig_of(FakeUpstream((b"data: {}\n\n", b"x"), stops_before_chunk=1)), asking(stream=True)


def writing_to_a_slow_client() -> tuple[Rig, FakeConnection]:
    connection = asking(stream=True)
    connection.blocks = "write"
    return rig_of(FakeUpstream((b"data: {}\n\n",) * 3)), connection


EACH_WAIT = [
    reading_the_body,
    reading_an_untracked_body,
    waiting_for_the_verdict,
    writing_a_comment,
    opening_the_held_stream,
    telling_how_long_it_was_held,
    waiting_for_the_head,
    waiting_for_an_untracked_head,
    writing_the_head,
    reading_the_first_chunk,
    reading_a_later_chunk,
    writing_to_a_slow_client,
]


@pytest.mark.parametrize("how", ["disconnect", "cancel"])
@pytest.mark.parametrize("wait", EACH_WAIT, ids=[wait.__name__ for wait in EACH_WAIT])
async def test_a_request_that_ends_here_leaves_nothing(wait: Callable[[], Any], how: str) -> None:
    """The client goes, or the server gives the request up."""
    rig, connection = wait()
    handling = asyncio.get_running_loop().create_task(rig.handle(connection))
    await asyncio.sleep(0.12)
    assert not handling.done()
    if how == "disconnect":
        connection.disconnects()
    else:
        handling.cancel()
    await asyncio.wait((handling,), timeout=5)
    assert handling.cancelled() == (how == "cancel")
    rig.dispatcher.policy.backends[BACKEND].counted.pop("another", None)
    await rig.assert_nothing_is_left()


@pytest.mark.parametrize("how", ["disconnect", "cancel"])
async def test_a_request_that_ends_with_its_last_bytes_has_finished(how: str) -> None:
    """The backend's answer was whole by then: the session's turn counts, its client got most of it."""
    rig, connection = rig_of(), asking()
    connection.blocks = "finish"
    handling = asyncio.get_running_loop().create_task(rig.handle(connection))
    await asyncio.sleep(0.05)
    if how == "disconnect":
        connection.disconnects()
        await asyncio.sleep(0.05)
    handling.cancel()
    await asyncio.wait((handling,), timeout=5)
    [session] = rig.dispatcher.policy.sessions
    assert session.turns == 1
    assert (rig.dispatcher.open_turns, rig.upstream.open_answers) == (0, 0)


@pytest.mark.parametrize("how", ["disconnect", "cancel"])
async def test_a_request_may_end_before_its_record_has_come(how: str) -> None:
    """And its record may come in the very moment in which the request is given up."""
    rig = rig_of(journal=LateJournal)
    connection = asking()
    connection.scope["headers"] = [*connection.scope["headers"], (b"x-mars-session-final", b"true")]
    handling = asyncio.get_running_loop().create_task(rig.handle(connection))
    await asyncio.sleep(0.05)
    journal = rig.dispatcher.journal
    assert isinstance(journal, LateJournal)
    if how == "disconnect":
        connection.disconnects()
        await asyncio.sleep(0.05)
    handling.cancel()
    journal.catch_up()
    await asyncio.wait((handling,), timeout=5)
    journal.catch_up()
    assert handling.cancelled() or handling.exception() is None
    assert (rig.dispatcher.open_turns, rig.dispatcher.policy.open_turns) == (0, 0)


# -- what the backend does ------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("failure", "status"),
    [
        (UpstreamUnreachable(BACKEND, "x"), 502),
        (UpstreamTimeout(BACKEND, "x"), 504),
        (UpstreamBroke(BACKEND, "x"), 502),
    ],
)
@pytest.mark.parametrize("path", ["/v1/chat/completions", "/v1/embeddings"])
async def test_no_answer(failure: Exception, status: int, path: str) -> None:
    """An error of ours that names the backend."""
    rig, connection = rig_of(FakeUpstream(waits_for_head=True, failure=failure)), asking(path)
    await rig.handle(connection)
    assert connection.status == status
    assert BACKEND.encode() in connection.body
    await rig.assert_nothing_is_left()


async def test_half_an_answer() -> None:
    """Is cut."""
    broke = UpstreamBroke(BACKEND, "broke off")
    rig = rig_of(FakeUpstream((b"data: {}\n\n", b"x"), stops_before_chunk=1, failure=broke))
    connection = asking(stream=True)
    await rig.handle(connection)
    assert (connection.status, connection.is_cut, connection.is_finished) == (200, True, False)
    await rig.assert_nothing_is_left()


async def test_a_whole_stream() -> None:
    """As it came, with the headers that say what the proxy did."""
    rig, connection = rig_of(FakeUpstream(STREAM)), asking(stream=True)
    await rig.handle(connection)
    assert (connection.status, connection.body) == (200, b"".join(STREAM))
    assert connection.headers[b"x-mars-decision"] == b"new"
    [session] = rig.dispatcher.policy.sessions
    assert session.turns == 1


DELTA = b'data: {"choices":[{"index":0,"delta":{"content":"x"}}]}\n\n'


async def progress_of(chunks: Sequence[bytes], chunk_s: float) -> list[int]:
    """Tokens of each report, by a clock that goes on by so much with every event that is looked at."""
    now = [0.0]

    async def each() -> AsyncIterator[bytes]:
        for chunk in (*chunks, *STREAM):
            now[0] += chunk_s
            yield chunk

    class TimedAnswer(FakeAnswer):
        def chunks(self) -> AsyncIterator[bytes]:
            return each()

    class TimedUpstream(FakeUpstream):
        async def send(self, method: str, target: str, headers: Any, body: Any) -> FakeAnswer:
            self.open_answers += 1
            return TimedAnswer(self)

    rig = rig_of(TimedUpstream(STREAM), clock=lambda: now[0])
    await rig.handle(asking(stream=True))
    policy = rig.dispatcher.state.policy.inner
    assert isinstance(policy, TellingPolicy)
    assert isinstance(policy.told[-1], TurnEnded)
    return [event.completion_tokens for event in policy.told if isinstance(event, TurnProgressed)]


async def test_long_answers_are_told_now_and_then() -> None:
    """Every 256 tokens of a slow stream, every second of a fast one, and nothing of a short one."""
    assert await progress_of([DELTA] * 1000, chunk_s=0.02) == [256, 512, 768]
    assert await progress_of([DELTA] * 1000, chunk_s=1 / 512) == [513]
    assert await progress_of([DELTA] * 200, chunk_s=0.5) == []


async def test_usage_on_the_way_is_believed() -> None:
    """Engines may put several tokens into an event, and say how many there are by now."""
    chunks = [
        DELTA.replace(b"}]}", b'}],"usage":{"prompt_tokens":9,"completion_tokens":%d}}' % (n * 8))
        for n in range(1, 301)
    ]
    assert await progress_of(chunks, chunk_s=0.02) == [2048]


async def test_what_is_not_understood_goes_through() -> None:
    """Byte for byte, as nobody's turn."""
    rig = rig_of()
    connection = FakeConnection(content_length="8").sends(b"not json")
    await rig.handle(connection)
    assert rig.upstream.sent[0][3] == b"not json"
    assert (connection.status, b"x-mars-session" in connection.headers) == (200, False)
    await rig.assert_nothing_is_left()


async def test_a_session_in_the_url() -> None:
    """It is for us; the backend gets the path without it, and the query as it was."""
    rig, connection = rig_of(), asking("/s/mine/v1/chat/completions")
    connection.scope["query_string"] = b"a=%20"
    await rig.handle(connection)
    assert rig.upstream.sent[0][:2] == ("POST", "/v1/chat/completions?a=%20")


async def test_a_target_that_is_no_path() -> None:
    """Is answered here."""
    rig, connection = rig_of(), FakeConnection("OPTIONS", "*")
    await rig.handle(connection)
    assert (connection.status, rig.upstream.sent) == (400, [])


async def body_sent(rig: Rig, **fields: Any) -> bytes:
    connection = asking(**fields)
    await rig.handle(connection)
    assert connection.status == 200
    body = rig.upstream.sent[-1][3]
    assert isinstance(body, bytes)
    return body


PATCHED = Finding(PatchState.WORKING, capabilities=Capabilities("0.1", "0.32.0"))


async def test_a_patched_backend_is_told_of_the_session_in_the_body() -> None:
    """From the moment that the patch is found until it is gone; in front of what came."""
    rig = rig_of()
    stock = await body_sent(rig)
    rig.patch.found(PATCHED)
    patched = await body_sent(rig)
    rig.patch.found(Finding(PatchState.PASSTHROUGH, "an error", PATCHED.capabilities))
    assert await body_sent(rig) == stock
    xargs = json.loads(patched)["vllm_xargs"]
    assert set(xargs) >= {"mars_session", "mars_class"}
    assert patched == stock.replace(
        b"{", b'{"vllm_xargs":%b,' % json.dumps(xargs, separators=(",", ":")).encode(), 1
    )


async def test_both_additions_fit_into_one_body() -> None:
    """Usage that was not asked for, and the session."""
    rig = rig_of(FakeUpstream(STREAM))
    rig.patch.found(PATCHED)
    sent = json.loads(await body_sent(rig, stream=True, vllm_xargs={"mars_session": "theirs"}))
    assert sent["stream_options"] == {"include_usage": True}
    assert sent["vllm_xargs"]["mars_session"] == "theirs"
    assert "mars_class" in sent["vllm_xargs"]


@pytest.mark.parametrize("xargs", [3, [], "x"], ids=repr)
async def test_xargs_that_are_no_object_are_left_alone(xargs: Any) -> None:
    """Refusing them is the backend's business."""
    rig = rig_of()
    rig.patch.found(PATCHED)
    assert json.loads(await body_sent(rig, vllm_xargs=xargs))["vllm_xargs"] == xargs

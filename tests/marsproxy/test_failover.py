"""A turn that one backend fails goes to another, once, while its client has seen nothing of an answer."""

import asyncio
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

import pytest
from prometheus_client import CollectorRegistry

from marsproxy.backend import Backend
from marsproxy.backends import Backends
from marsproxy.client import Client
from marsproxy.config import Backend as BackendSettings
from marsproxy.config import Config, Hold
from marsproxy.core.commands import Command
from marsproxy.core.events import BackendObserved, Ending, Event, TurnBounced, TurnEnded
from marsproxy.core.identity import IdentityLimits, SessionIndex
from marsproxy.core.policy import Policy
from marsproxy.core.settings import AdmissionSettings, PolicySettings
from marsproxy.core.shared_state import SharedState
from marsproxy.discovery.endpoint import Endpoint
from marsproxy.dispatcher import Dispatcher
from marsproxy.hints import Hints
from marsproxy.journal import MemoryJournal
from marsproxy.metrics import Metrics
from marsproxy.relay import Relay
from marsproxy.tasks import TaskOwner
from marsproxy.upstream import (
    UpstreamBroke,
    UpstreamError,
    UpstreamSilent,
    UpstreamTimeout,
    UpstreamUnreachable,
)
from marsproxy.wire.forms import NormalForms
from tests.marsproxy.asgi import FakeConnection
from tests.marsproxy.test_relay import STREAM, UNARY, FakeUpstream, asking

NAMES = ("http://a:1", "http://b:1", "http://c:1")


class TellingPolicy(Policy):
    """Keeps what it is told."""

    told: list[Event]

    def handle(self, event: Event, now: float) -> list[Command]:
        if not hasattr(self, "told"):
            self.told = []
        self.told.append(event)
        return super().handle(event, now)


@dataclass
class Rig:
    backends: Backends
    upstreams: dict[str, FakeUpstream]
    policy: TellingPolicy
    dispatcher: Dispatcher
    relay: Relay
    tasks: TaskOwner
    metrics: Metrics

    async def handle(self, connection: FakeConnection) -> None:
        async with asyncio.timeout(5):
            await self.relay.handle(Client(connection.scope, connection.receive, connection.send))

    def backend(self, name: str) -> Backend:
        found = self.backends.get(name)
        assert found is not None
        return found

    @property
    def sent(self) -> list[int]:
        return [len(upstream.sent) for upstream in self.upstreams.values()]

    @property
    def bounced(self) -> list[str]:
        return [event.backend for event in self.policy.told if isinstance(event, TurnBounced)]

    @property
    def endings(self) -> list[Ending]:
        return [event.ending for event in self.policy.told if isinstance(event, TurnEnded)]

    async def assert_nothing_is_left(self) -> None:
        await asyncio.sleep(0.01)
        counted = sum(len(backend.counted) for backend in self.policy.backends.values())
        open_answers = sum(upstream.open_answers for upstream in self.upstreams.values())
        left = (self.dispatcher.open_turns, self.policy.open_turns, len(self.policy.held), len(self.tasks))
        assert (*left, open_answers, counted) == (0, 0, 0, 0, 0, 0)


def rig_of(*upstreams: FakeUpstream, admission: dict[str, Any] | None = None, **backend: Any) -> Rig:
    names = NAMES[: len(upstreams)]
    config = Config(
        backends=names,
        admission=AdmissionSettings(**{"idle_gap_s": 0.0} | (admission or {})),
        hold=Hold(sse_comment_interval_s=0.05),
        backend=BackendSettings(**backend),
    )
    metrics, tasks = Metrics(CollectorRegistry()), TaskOwner()
    policy = TellingPolicy(PolicySettings(config.admission, config.sessions), names)
    dispatcher = Dispatcher(
        SharedState(policy, SessionIndex(IdentityLimits(), salt=b"salt")),
        lambda replica: MemoryJournal(replica, clock=asyncio.get_running_loop().time),
        metrics,
        None,
        Hints(),
        set_timer=lambda _, __: None,
    )
    backends = Backends(config, metrics, Hints(), [Endpoint(name) for name in names])
    for each, upstream in zip(backends, upstreams, strict=True):
        each.upstream = upstream  # type: ignore[assignment]
    relay = Relay(config, backends, dispatcher, NormalForms(seed=1), metrics, tasks)
    return Rig(backends, dict(zip(names, upstreams, strict=True)), policy, dispatcher, relay, tasks, metrics)


def failing(failure: UpstreamError) -> FakeUpstream:
    """Before the head of an answer."""
    return FakeUpstream(waits_for_head=True, failure=failure)


def refused() -> UpstreamError:
    return UpstreamUnreachable(NAMES[0], "no connection", may_have_begun=False)


def broke() -> UpstreamError:
    return UpstreamBroke(NAMES[0], "broke off")


TAKEN_BY_ANOTHER = {
    "no connection": lambda: failing(refused()),
    "reset before the head": lambda: failing(UpstreamUnreachable(NAMES[0], "reset")),
    "connecting took too long": lambda: failing(UpstreamTimeout(NAMES[0], "slow", may_have_begun=False)),
    "502": lambda: FakeUpstream(fails_with_status=502),
    "503": lambda: FakeUpstream(fails_with_status=503),
    "reset after the head": lambda: FakeUpstream(STREAM, stops_before_chunk=0, failure=broke()),
}


@pytest.mark.parametrize("how", TAKEN_BY_ANOTHER)
@pytest.mark.parametrize("is_streaming", [False, True])
async def test_another_takes_it(how: str, is_streaming: bool) -> None:
    """The client sees the answer of the second, and nothing of the first."""
    chunks = STREAM if is_streaming else (UNARY,)
    rig = rig_of(TAKEN_BY_ANOTHER[how](), FakeUpstream(chunks))
    connection = asking(stream=is_streaming)
    await rig.handle(connection)
    assert (connection.status, connection.body) == (200, b"".join(chunks))
    assert (rig.sent, rig.bounced, rig.endings) == ([1, 1], [NAMES[0]], [Ending.FINISHED])
    [session] = rig.policy.sessions
    assert session.backend == NAMES[1]
    assert f'mars_backend_bounces_total{{backend="{NAMES[0]}"}} 1.0' in rig.metrics.render()[1].decode()
    await rig.assert_nothing_is_left()


STAYS_WITH_THE_FIRST: dict[str, tuple[Callable[[], FakeUpstream], int]] = {
    "silence": (lambda: failing(UpstreamTimeout(NAMES[0], "silent")), 504),
    "silence after the head": (
        lambda: FakeUpstream((UNARY,), stops_before_chunk=0, failure=UpstreamSilent(NAMES[0], "silent")),
        502,
    ),
    "400": (lambda: FakeUpstream(fails_with_status=400), 400),
    "429": (lambda: FakeUpstream(fails_with_status=429), 429),
    "500": (lambda: FakeUpstream(fails_with_status=500), 500),
    "504": (lambda: FakeUpstream(fails_with_status=504), 504),
}


@pytest.mark.parametrize("how", STAYS_WITH_THE_FIRST)
async def test_what_may_be_at_work_or_was_answered_is_not_repeated(how: str) -> None:
    """Twice the work, or another answer than the engine's own."""
    upstream, status = STAYS_WITH_THE_FIRST[how]
    rig, connection = rig_of(upstream(), FakeUpstream()), asking()
    await rig.handle(connection)
    assert (connection.status, rig.sent, rig.bounced) == (status, [1, 0], [])
    await rig.assert_nothing_is_left()


async def test_an_answer_that_has_begun_is_cut() -> None:
    """Its client has some of it."""
    rig = rig_of(FakeUpstream(STREAM, stops_before_chunk=1, failure=broke()), FakeUpstream(STREAM))
    connection = asking(stream=True, stream_options={"include_usage": True})
    await rig.handle(connection)
    assert (connection.status, connection.body, connection.is_cut) == (200, STREAM[0], True)
    assert (rig.sent, rig.bounced, rig.endings) == ([1, 0], [], [Ending.FAILED])
    await rig.assert_nothing_is_left()


@pytest.mark.parametrize(("failovers", "sent"), [(0, [1, 0, 0]), (1, [1, 1, 0]), (2, [1, 1, 1])])
async def test_as_often_as_configured(failovers: int, sent: list[int]) -> None:
    """The last failure is the client's to see."""
    rig = rig_of(*(failing(UpstreamUnreachable(name, "x")) for name in NAMES), failovers=failovers)
    connection = asking()
    await rig.handle(connection)
    assert (connection.status, rig.sent) == (502, sent)
    assert (len(rig.bounced), rig.endings) == (failovers, [Ending.FAILED])
    await rig.assert_nothing_is_left()


async def test_one_by_itself_fails_as_ever() -> None:
    """No bounce, no other word: its own error."""
    rig, connection = rig_of(FakeUpstream(fails_with_status=503)), asking()
    await rig.handle(connection)
    assert (connection.status, connection.body, rig.bounced) == (503, UNARY, [])
    await rig.assert_nothing_is_left()


async def test_none_other_that_may() -> None:
    """The policy says no; the client learns why and when to come back."""
    rig = rig_of(failing(refused()), FakeUpstream())
    rig.policy.backends[NAMES[1]].is_reachable = False
    connection = asking()
    await rig.handle(connection)
    assert connection.status == 502
    assert (connection.headers[b"x-mars-reason"], rig.sent) == (b"backend_lost", [1, 0])
    assert b"retry-after" in connection.headers
    await rig.assert_nothing_is_left()


async def test_a_backend_whose_requests_fail_is_passed_by() -> None:
    """From its breaker's opening on, without another try; each turn that it fails has gone elsewhere."""
    rig = rig_of(failing(refused()), FakeUpstream(), breaker_failures=2)
    for _ in range(5):
        connection = asking()
        await rig.handle(connection)
        assert connection.status == 200
    assert rig.sent == [2, 5]
    assert rig.bounced == [NAMES[0]] * 5
    await rig.assert_nothing_is_left()


async def test_where_there_is_no_other_a_failing_one_is_tried() -> None:
    """A breaker is for those that have a choice."""
    rig = rig_of(failing(refused()), breaker_failures=2)
    for _ in range(5):
        await rig.handle(asking())
    assert rig.sent == [5]


async def test_a_backend_that_is_not_found_here_yet() -> None:
    """Another replica may have found it first."""
    rig = rig_of(FakeUpstream(), FakeUpstream())
    rig.backends._known.pop(NAMES[0])
    connection = asking()
    await rig.handle(connection)
    assert (connection.status, rig.bounced) == (200, [NAMES[0]])
    await rig.assert_nothing_is_left()


# -- each wait on the second way --------------------------------------------------------------------


def waiting_for_the_second_verdict() -> tuple[Rig, FakeConnection]:
    """The other backend is full."""
    rig = rig_of(failing(refused()), FakeUpstream(), admission={"fallback_concurrency": 1})
    rig.policy.backends[NAMES[1]].counted["another"] = None  # type: ignore[assignment]
    return rig, asking()


def writing_a_comment_after_the_bounce() -> tuple[Rig, FakeConnection]:
    rig, _ = waiting_for_the_second_verdict()
    connection = asking(stream=True)
    connection.blocks = "write"
    return rig, connection


def waiting_for_the_second_head() -> tuple[Rig, FakeConnection]:
    return rig_of(failing(refused()), FakeUpstream(waits_for_head=True)), asking()


def waiting_for_the_first_bytes_of_the_second() -> tuple[Rig, FakeConnection]:
    return rig_of(failing(refused()), FakeUpstream(STREAM, stops_before_chunk=0)), asking(stream=True)


def writing_the_head_of_the_second() -> tuple[Rig, FakeConnection]:
    connection = asking()
    connection.blocks = "start"
    return rig_of(failing(refused()), FakeUpstream()), connection


def waiting_for_the_first_bytes_of_the_first() -> tuple[Rig, FakeConnection]:
    return rig_of(FakeUpstream(STREAM, stops_before_chunk=0), FakeUpstream()), asking(stream=True)


EACH_WAIT = [
    waiting_for_the_second_verdict,
    writing_a_comment_after_the_bounce,
    waiting_for_the_second_head,
    waiting_for_the_first_bytes_of_the_second,
    writing_the_head_of_the_second,
    waiting_for_the_first_bytes_of_the_first,
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
    assert rig.endings == [Ending.ABORTED]
    rig.policy.backends[NAMES[1]].counted.pop("another", None)
    await rig.assert_nothing_is_left()


async def test_held_after_a_bounce_it_goes_when_there_is_room() -> None:
    """Its client is shown life meanwhile, and then the whole answer."""
    rig, connection = waiting_for_the_second_verdict()
    rig.upstreams[NAMES[1]].chunks = STREAM
    connection = asking(stream=True)

    def make_room() -> None:
        rig.policy.backends[NAMES[1]].counted.pop("another")
        rig.dispatcher.tell(BackendObserved(NAMES[1]))

    asyncio.get_running_loop().call_later(0.12, make_room)
    await rig.handle(connection)
    assert connection.status == 200
    assert connection.body.startswith(b": held\n\n")
    assert connection.body.endswith(b"".join(STREAM))
    assert rig.endings == [Ending.FINISHED]
    await rig.assert_nothing_is_left()


async def test_a_client_that_goes_is_no_failure_of_the_backend() -> None:
    """Its breaker knows nothing of it."""
    rig = rig_of(FakeUpstream(waits_for_head=True), FakeUpstream(), breaker_failures=1)
    connection = asking()
    handling = asyncio.get_running_loop().create_task(rig.handle(connection))
    await rig.upstreams[NAMES[0]].is_reached.wait()
    connection.disconnects()
    await asyncio.wait((handling,), timeout=5)
    assert rig.backend(NAMES[0]).breaker.failures == 0

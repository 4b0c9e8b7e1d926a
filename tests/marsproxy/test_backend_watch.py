"""One reading at a time from one source, whatever becomes of the backend."""

import asyncio
from dataclasses import dataclass, field
from typing import Any

import httpx
import msgspec
import pytest
from prometheus_client import CollectorRegistry

from backend_patch.protocol import Capabilities, Ending, Headroom, LeaseEnding
from marsproxy.backend_address import BackendAddress
from marsproxy.backend_watch import RECHECK_S, BackendWatch, Cadence
from marsproxy.core.events import BackendObserved, BackendUnreachable, Event, LeaseExpired
from marsproxy.headroom import MetricsPage
from marsproxy.patch import BackendPatch, HeadroomSource, PatchState
from marsproxy.patch_client import PatchClient
from marsproxy.patch_metrics import PatchFamilies, PatchMetrics
from tests.integration.patched_backend import METRICS_PAGE, PATCH, rank

CADENCE = Cadence(metrics_s=1.0, headroom_s=0.2)


@dataclass
class Rig:
    """A watch, a backend whose answers the test sets, and a clock in its hands."""

    answers: dict[str, Any] = field(default_factory=dict)
    """Under the last part of the path; None and what is missing is away."""
    now: float = 100.0
    cadence: Cadence = CADENCE
    told: list[Event] = field(default_factory=list)
    asked: list[str] = field(default_factory=list)

    def __post_init__(self) -> None:
        self.registry = CollectorRegistry()
        metrics = PatchMetrics("gpu", PatchFamilies(self.registry))
        self.patch = BackendPatch("gpu", metrics)
        client = httpx.AsyncClient(transport=httpx.MockTransport(self._answer))
        address = BackendAddress.of("http://gpu")
        self.watch = BackendWatch(
            self.patch,
            PatchClient(client, address),
            MetricsPage("gpu", client, address, kv_tokens=None),
            metrics,
            self.cadence,
            kv_tokens=None,
            clock=lambda: self.now,
            knows=lambda session: session.startswith("ours"),
            tell=self.told.append,
        )

    async def _answer(self, request: httpx.Request) -> httpx.Response:
        path, query = request.url.path.rpartition("/")[2], request.url.query.decode()
        self.asked.append(f"{path}?{query}" if query else path)
        answer = self.answers.get(path)
        if answer is None:
            raise httpx.ConnectError("refused")
        if isinstance(answer, asyncio.Event):
            await answer.wait()
        return answer if isinstance(answer, httpx.Response) else httpx.Response(200, content=answer)

    async def look(self, seconds_on: float = 1.0) -> float:
        """What it asked for and told is afterwards that of this look alone."""
        self.asked.clear()
        self.told.clear()
        self.now += seconds_on
        return await self.watch.look()

    def shows(self, **fields: Any) -> None:
        self.answers["headroom"] = msgspec.json.encode(Headroom((rank(**fields),)))

    @property
    def reading(self) -> BackendObserved:
        [reading] = self.told
        assert isinstance(reading, BackendObserved)
        return reading


def patched(capabilities: Capabilities = PATCH) -> Rig:
    rig = Rig({"capabilities": msgspec.json.encode(capabilities), "metrics": METRICS_PAGE})
    rig.shows(step=1)
    return rig


def stock() -> Rig:
    return Rig({"capabilities": httpx.Response(404), "metrics": METRICS_PAGE})


async def test_with_the_patch() -> None:
    """Asked for once; then its headroom alone, more often."""
    rig = patched()
    assert await rig.look() == CADENCE.headroom_s
    assert (rig.asked, rig.reading.takes_hints) == (["capabilities", "headroom"], True)
    rig.shows(step=2, running=1)
    assert await rig.look() == CADENCE.headroom_s
    assert (rig.asked, rig.reading.running) == (["headroom?after=0:0"], 1)


async def test_without_it() -> None:
    """The page, as ever."""
    rig = stock()
    assert await rig.look() == CADENCE.metrics_s
    assert (rig.asked, rig.reading.takes_hints) == (["capabilities", "metrics"], False)
    assert await rig.look() == CADENCE.metrics_s
    assert (rig.asked, rig.reading.kv_tokens_total) == (["metrics"], 16_000)


async def test_a_stock_backend_is_asked_again_now_and_then() -> None:
    """Its restart may have been hidden from us; one that stepped aside stays as it is."""
    rig = stock()
    await rig.look()
    await rig.look(RECHECK_S - 1)
    assert rig.asked == ["metrics"]
    rig.answers = patched().answers
    await rig.look()
    assert rig.reading.takes_hints
    rig.shows(step=2, passthrough="an error")
    await rig.look()
    await rig.look(RECHECK_S)
    assert rig.asked == ["metrics"]


async def test_what_is_not_new_is_told_as_often_as_the_page_is_read() -> None:
    """An idle backend does not fill the event log five times as fast."""
    rig = patched()
    told = []
    for step in range(11):
        await rig.look(0.2)
        told += [step] * len(rig.told)
    assert told == [0, 5, 10]
    rig.shows(running=1)
    await rig.look(0.2)
    assert rig.reading.running == 1


async def test_a_backend_that_is_away() -> None:
    """Is asked again, and when it is back its patch is found."""
    rig = Rig()
    for _ in range(2):
        assert await rig.look() == CADENCE.metrics_s
        assert rig.told == [BackendUnreachable("gpu")]
        assert rig.asked == ["capabilities", "metrics"]
    rig.answers = patched().answers
    await rig.look()
    assert rig.reading.takes_hints
    assert rig.patch.source is HeadroomSource.PATCH


async def test_a_stock_backend_that_was_away_may_have_the_patch_now() -> None:
    """Whoever installs it has to start the backend anew."""
    rig = stock()
    await rig.look()
    rig.answers["metrics"] = None
    await rig.look()
    rig.answers = patched().answers
    await rig.look()
    assert rig.reading.takes_hints


@pytest.mark.parametrize("broken", [None, httpx.Response(500), b"{}", b'{"ranks":[]}'], ids=repr)
async def test_headroom_that_fails(broken: Any) -> None:
    """Is replaced in the same look; its capabilities are asked for once; it is tried again each time."""
    rig = patched()
    await rig.look()
    rig.answers["headroom"] = broken
    assert await rig.look() == CADENCE.metrics_s
    assert rig.asked == ["headroom?after=0:0", "metrics"]
    assert (rig.reading.takes_hints, rig.reading.kv_leased_tokens) == (True, None)
    assert rig.patch.source is HeadroomSource.METRICS
    await rig.look()
    assert rig.asked == ["capabilities", "headroom?after=0:0", "metrics"]
    await rig.look()
    assert rig.asked == ["headroom?after=0:0", "metrics"]
    rig.shows(step=2)
    assert await rig.look() == CADENCE.headroom_s
    assert rig.patch.source is HeadroomSource.PATCH


async def test_a_patch_that_is_gone() -> None:
    """No more hints from the first reading that follows."""
    rig = patched()
    await rig.look()
    rig.answers |= {"headroom": httpx.Response(404), "capabilities": httpx.Response(404)}
    await rig.look()
    await rig.look()
    assert (rig.asked, rig.reading.takes_hints) == (["capabilities", "metrics"], False)
    assert rig.patch.finding.state is PatchState.STOCK


async def test_a_patch_that_steps_aside() -> None:
    """At once, and for as long as this engine runs; what it reported is not used."""
    rig = patched()
    await rig.look()
    rig.shows(step=2, passthrough="an error", running=9)
    assert await rig.look() == CADENCE.metrics_s
    assert (rig.reading.takes_hints, rig.reading.running) == (False, None)
    await rig.look()
    assert rig.asked == ["metrics"]
    assert rig.patch.finding.why == "an error"


async def test_an_engine_that_was_started_anew_is_asked_anew() -> None:
    """It may be another version."""
    rig = patched()
    rig.shows(step=100)
    await rig.look()
    rig.shows(step=3)
    await rig.look()
    await rig.look()
    assert rig.asked == ["capabilities", "headroom?after=0:0"]


async def test_endings_come_before_the_reading() -> None:
    """So that who is admitted by it knows of them; only those of our sessions, and those lost are counted."""
    rig = patched()
    await rig.look()
    endings = (LeaseEnding(3, "ours", Ending.EXPIRED, 64), LeaseEnding(4, "theirs", Ending.EXPIRED, 64))
    rig.shows(step=2, last_seq=4, endings=endings)
    await rig.look()
    assert rig.told[0] == LeaseExpired("ours", "gpu", 64)
    assert [type(event) for event in rig.told[1:]] == [BackendObserved]
    assert rig.registry.get_sample_value("mars_lease_endings_missed_total", {"backend": "gpu"}) == 2
    expired = {"backend": "gpu", "how": "expired"}
    assert rig.registry.get_sample_value("mars_lease_endings_total", expired) == 1


@pytest.mark.parametrize("waits_for", ["capabilities", "headroom", "metrics"])
async def test_it_ends_wherever_it_waits(waits_for: str) -> None:
    """And tells nothing of what it had begun."""
    rig = patched() if waits_for == "headroom" else stock()
    rig.answers[waits_for] = asyncio.Event()
    running = asyncio.get_running_loop().create_task(rig.watch.run())
    async with asyncio.timeout(5):
        while not rig.asked or not rig.asked[-1].startswith(waits_for):  # noqa: ASYNC110
            await asyncio.sleep(0)
    running.cancel()
    await asyncio.wait((running,))
    assert running.cancelled()
    assert rig.told == []


async def test_reading_goes_on_whatever_comes() -> None:
    """Until it is cancelled, also while it waits for the next."""
    failing = {"capabilities": httpx.Response(500), "metrics": httpx.Response(500)}
    rig = Rig(failing, cadence=Cadence(0.001, 0.001))
    running = asyncio.get_running_loop().create_task(rig.watch.run())
    async with asyncio.timeout(5):
        while len(rig.told) < 3:  # noqa: ASYNC110
            await asyncio.sleep(0.001)
        rig.answers = patched().answers
        while not rig.patch.is_working:  # noqa: ASYNC110
            await asyncio.sleep(0.001)
    running.cancel()
    await asyncio.wait((running,))
    assert running.cancelled()

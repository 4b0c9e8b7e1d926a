"""Advice on its way to a backend: translated, gathered, sent once or not at all."""

import asyncio
from dataclasses import dataclass, field

import msgspec
import pytest
from prometheus_client import CollectorRegistry

from backend_patch.protocol import KvAnswer, KvOp, KvRequest, KvStatus, LeaseMode
from marsproxy.core.commands import HintKv, KvAction, YieldsTo
from marsproxy.core.events import Event, HintAnswered
from marsproxy.hints import Hints, HintSender, answer_of, milliseconds, request_of
from marsproxy.patch import BackendPatch, Finding, PatchState
from marsproxy.patch_client import PatchFailed
from marsproxy.patch_metrics import Dropped, PatchFamilies, PatchMetrics
from tests.integration.patched_backend import PATCH, accept

KEEP, RELEASE, DEMOTE = (HintKv("a", "gpu", KvAction(word)) for word in ("keep", "release", "demote"))


@pytest.mark.parametrize(
    ("hint", "request_"),
    [
        (HintKv("a", "gpu", KvAction.KEEP, 2.5), KvRequest(KvOp.PIN, "a", "", 2500, LeaseMode.SOFT)),
        (HintKv("a", "gpu", KvAction.KEEP), KvRequest(KvOp.PIN, "a", "", None, LeaseMode.SOFT)),
        (
            HintKv("a", "gpu", KvAction.KEEP, 1, YieldsTo.NOBODY),
            KvRequest(KvOp.PIN, "a", "", 1000, LeaseMode.HARD),
        ),
        (
            HintKv("a", "gpu", KvAction.KEEP, 1, YieldsTo.ANYBODY),
            KvRequest(KvOp.PIN, "a", "", 1000, LeaseMode.OPEN),
        ),
        (RELEASE, KvRequest(KvOp.RELEASE, "a")),
        (DEMOTE, KvRequest(KvOp.RECYCLE, "a")),
        (HintKv("a", "gpu", KvAction.SWAP_OUT), KvRequest(KvOp.DEMOTE, "a")),
    ],
    ids=lambda each: each.op.value if isinstance(each, KvRequest) else None,
)
def test_what_is_asked_for(hint: HintKv, request_: KvRequest) -> None:
    """A pin is for the session's own turns; everything else for all that it has."""
    assert request_of(hint) == request_


@pytest.mark.parametrize(("seconds", "expected"), [(0.0001, 1), (0.0, 1), (1.0006, 1001)])
def test_milliseconds(seconds: float, expected: int) -> None:
    """The patch refuses a lease of no time."""
    assert milliseconds(seconds) == expected


@pytest.mark.parametrize(
    ("answer", "kept"),
    [
        (KvAnswer(KvStatus.ACCEPTED, "a", KvOp.PIN, 4, 64), 64),
        (KvAnswer(KvStatus.CLIPPED, "a", KvOp.PIN, 2, 32), 32),
        (KvAnswer(KvStatus.REJECTED, "a", KvOp.PIN, reason="budget"), 0),
        (KvAnswer(KvStatus.REJECTED, "a", KvOp.PIN, reason="running"), None),
        (KvAnswer(KvStatus.MISSING, "a", KvOp.PIN), 0),
        (KvAnswer(KvStatus.ACCEPTED, "a", KvOp.DEMOTE, 4, 64), 64),
        (KvAnswer(KvStatus.REJECTED, "a", KvOp.DEMOTE, reason="no_host_tier"), 0),
    ],
)
def test_what_was_kept(answer: KvAnswer, kept: int | None) -> None:
    """None is not known yet, 0 is nothing."""
    assert answer_of("gpu", answer) == HintAnswered("a", "gpu", kept)


@pytest.mark.parametrize("op", [KvOp.RELEASE, KvOp.RECYCLE, KvOp.END])
def test_nothing_is_kept_by_letting_go(op: KvOp) -> None:
    """Nor told: the simulated engine says nothing either."""
    assert answer_of("gpu", KvAnswer(KvStatus.ACCEPTED, "a", op, 4, 64)) is None


@dataclass
class Client:
    """In place of the wire. Waits where the test says so."""

    batches: list[list[KvRequest]] = field(default_factory=list)
    may_answer: asyncio.Event = field(default_factory=asyncio.Event)
    fails: bool = False
    open_batches: int = 0

    def __post_init__(self) -> None:
        self.may_answer.set()

    async def send(self, batch: list[KvRequest]) -> list[KvAnswer]:
        self.batches.append(batch)
        self.open_batches += 1
        try:
            await self.may_answer.wait()
        finally:
            self.open_batches -= 1
        if self.fails:
            raise PatchFailed("ReadTimeout")
        return [accept(request) for request in batch]


class Rig:
    def __init__(self, *, is_working: bool = True, **limits: float) -> None:
        self.registry = CollectorRegistry()
        metrics = PatchMetrics("gpu", PatchFamilies(self.registry))
        self.patch = BackendPatch("gpu", metrics)
        if is_working:
            self.patch.found(Finding(PatchState.WORKING, capabilities=PATCH))
        self.now = 100.0
        bounds = {"max_sessions": 100, "expiry_s": 3600.0} | limits
        self.sender = HintSender(self.patch, metrics, clock=lambda: self.now, **bounds)  # type: ignore[arg-type]
        self.client = Client()
        self.told: list[Event] = []
        self.known = {"a", "b", "c"}

    def start(self) -> asyncio.Task[None]:
        run = self.sender.run(self.client, self.known.__contains__, self.told.append)
        return asyncio.get_running_loop().create_task(run)

    def count(self, op: KvOp, status: KvStatus | Dropped) -> float | None:
        labels = {"backend": "gpu", "op": op.value, "status": status.value}
        return self.registry.get_sample_value("mars_hints_total", labels)

    async def until_batches(self, number: int) -> None:
        async with asyncio.timeout(5):
            while len(self.client.batches) < number:  # noqa: ASYNC110
                await asyncio.sleep(0.001)


def sessions(batch: list[KvRequest]) -> list[str]:
    return [f"{request.op.value} {request.session}" for request in batch]


async def stop(running: asyncio.Task[None]) -> None:
    running.cancel()
    await asyncio.wait((running,))
    assert running.cancelled()


async def test_what_comes_together_goes_together() -> None:
    """In one batch; answers are told of sessions that are still known."""
    rig = Rig()
    running = rig.start()
    for session in ("a", "gone"):
        rig.sender.hint(HintKv(session, "gpu", KvAction.KEEP, 1.0))
    await rig.until_batches(1)
    await asyncio.sleep(0.01)
    assert [sessions(batch) for batch in rig.client.batches] == [["pin a", "pin gone"]]
    assert rig.told == [HintAnswered("a", "gpu", 64)]
    assert rig.count(KvOp.PIN, KvStatus.ACCEPTED) == 2
    await stop(running)


async def test_one_batch_at_a_time() -> None:
    """What comes meanwhile is gathered, and what is overtaken meanwhile is not sent."""
    rig = Rig()
    rig.client.may_answer.clear()
    running = rig.start()
    rig.sender.hint(KEEP)
    await rig.until_batches(1)
    for session in "abc":
        rig.sender.hint(HintKv(session, "gpu", KvAction.RELEASE))
    rig.sender.forwarded("b", is_side=False)
    await asyncio.sleep(0.01)
    assert rig.client.open_batches == 1
    rig.client.may_answer.set()
    await rig.until_batches(2)
    assert sessions(rig.client.batches[1]) == ["release a", "release c"]
    assert rig.count(KvOp.RELEASE, Dropped.OVERTAKEN) == 1
    await stop(running)


async def test_a_side_call_overtakes_nothing() -> None:
    """It says nothing about the session's own blocks."""
    rig = Rig()
    rig.sender.hint(KEEP)
    rig.sender.forwarded("a", is_side=True)
    assert (rig.sender.waiting, rig.sender.remembered) == (1, 1)


async def test_a_failure_is_counted_and_over() -> None:
    """Nothing is sent again, and the next goes on."""
    rig = Rig()
    rig.client.fails = True
    running = rig.start()
    rig.sender.hint(KEEP)
    await rig.until_batches(1)
    rig.client.fails = False
    rig.sender.hint(HintKv("b", "gpu", KvAction.KEEP))
    await rig.until_batches(2)
    assert [sessions(batch) for batch in rig.client.batches] == [["pin a"], ["pin b"]]
    assert rig.count(KvOp.PIN, Dropped.FAILED) == 1
    assert [event.session_id for event in rig.told if isinstance(event, HintAnswered)] == ["b"]
    await stop(running)


@pytest.mark.parametrize("state", [PatchState.UNKNOWN, PatchState.STOCK, PatchState.PASSTHROUGH])
async def test_without_a_patch_nothing_waits(state: PatchState) -> None:
    """Nor is anything remembered."""
    rig = Rig(is_working=False)
    rig.patch.found(Finding(state, "why", PATCH))
    rig.sender.forwarded("a", is_side=False)
    rig.sender.hint(KEEP)
    rig.sender.forget("a")
    assert (rig.sender.waiting, rig.sender.remembered) == (0, 0)
    assert rig.count(KvOp.PIN, Dropped.NO_PATCH) == 1


async def test_what_the_patch_cannot_do_is_not_asked() -> None:
    """It says which operations it has."""
    rig = Rig()
    capabilities = msgspec.structs.replace(PATCH, ops=(KvOp.PIN,))
    rig.patch.found(Finding(PatchState.WORKING, capabilities=capabilities))
    rig.sender.hint(RELEASE)
    rig.sender.hint(KEEP)
    assert (rig.sender.waiting, rig.count(KvOp.RELEASE, Dropped.NO_PATCH)) == (1, 1)


async def test_only_sessions_that_were_there_are_ended() -> None:
    """Once each; a session that begins anew is another."""
    rig = Rig()
    rig.sender.forwarded("a", is_side=False)
    for session in ("a", "a", "b"):
        rig.sender.forget(session)
    assert (rig.sender.waiting, rig.sender.remembered) == (1, 0)
    rig.sender.forwarded("a", is_side=False)
    assert rig.count(KvOp.END, Dropped.OVERTAKEN) == 1
    rig.sender.forget("a")
    assert rig.sender.waiting == 1


async def test_sessions_are_remembered_for_a_while() -> None:
    """And only so many of them: the one whose turn is longest ago goes first."""
    rig = Rig(max_sessions=2, expiry_s=10.0)
    for session in "abac":
        rig.sender.forwarded(session, is_side=False)
    assert rig.sender.remembered == 2
    rig.sender.forget("b")
    assert rig.sender.waiting == 0
    rig.now += 10.5
    rig.sender.forwarded("d", is_side=False)
    assert rig.sender.remembered == 1


async def test_it_ends_wherever_it_waits() -> None:
    """For the first hint, for an answer, for the next batch; and sends nothing more."""
    idle = Rig()
    running = idle.start()
    await asyncio.sleep(0)
    await stop(running)

    asking = Rig()
    asking.client.may_answer.clear()
    running = asking.start()
    asking.sender.hint(KEEP)
    await asking.until_batches(1)
    asking.sender.hint(RELEASE)
    await stop(running)
    assert (len(asking.client.batches), asking.client.open_batches, asking.told) == (1, 0, [])

    pausing = Rig()
    running = pausing.start()
    pausing.sender.hint(KEEP)
    await pausing.until_batches(1)
    await asyncio.sleep(0.005)
    pausing.sender.hint(RELEASE)
    await stop(running)
    assert len(pausing.client.batches) == 1


async def test_hints_go_to_their_backend() -> None:
    """An end to every one that had the session."""
    here, there = Rig(), Rig()
    there.sender.backend = "other"
    hints = Hints((here.sender, there.sender))
    hints.hint(HintKv("a", "other", KvAction.KEEP))
    assert (here.sender.waiting, there.sender.waiting) == (0, 1)
    hints.forwarded("b", "gpu", is_side=False)
    hints.forwarded("b", "other", is_side=False)
    hints.forget("b")
    assert (here.sender.waiting, there.sender.waiting) == (1, 2)


def test_without_backends_nothing_happens() -> None:
    """For whoever only replays."""
    hints = Hints()
    hints.hint(KEEP)
    hints.forwarded("a", "gpu", is_side=False)
    hints.forget("a")

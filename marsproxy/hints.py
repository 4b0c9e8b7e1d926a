"""Sends the policy's advice about KV blocks to the backends that take it, and tells what they made of it.

The dispatcher hands hints over without waiting; a task for each backend sends what has come together since
the last batch. Advice that cannot be delivered is dropped and counted, never sent again: by then it would be
about a state that is over, and the leases of a backend that heard nothing run out by themselves. A stop sends
nothing more, for the same reason.

A change of a running turn's priority (``Reprioritise``) has no operation in the patch and is not sent.
"""

import asyncio
import logging
from collections import OrderedDict
from collections.abc import Callable, Iterable
from typing import assert_never

from backend_patch.protocol import MAX_BATCH, KvAnswer, KvOp, KvRequest, KvStatus, LeaseMode
from marsproxy.core.commands import HintKv, KvAction, YieldsTo
from marsproxy.core.events import Event, HintAnswered
from marsproxy.hint_queue import HintQueue
from marsproxy.patch import BackendPatch
from marsproxy.patch_client import PatchClient, PatchFailed
from marsproxy.patch_metrics import Dropped, PatchMetrics

log = logging.getLogger(__name__)

BATCH_INTERVAL_S = 0.05
"""Least time between two batches: one takes a turn of the engine's loop between two steps, which are tens of
milliseconds, and a lease is for seconds."""
MAX_WAITING = 4 * MAX_BATCH
"""Sessions with a hint that waits, of one backend: as many as it remembers by default."""
MAIN_BRANCH = ""
"""Of a session, as the patch knows it: its own turns, none of its side calls."""

MODES = {
    YieldsTo.ANYBODY: LeaseMode.OPEN,
    YieldsTo.RETURNING: LeaseMode.SOFT,
    YieldsTo.NOBODY: LeaseMode.HARD,
}


def request_of(hint: HintKv) -> KvRequest:
    """What the patch is asked to do."""
    match hint.action:
        case KvAction.KEEP:
            ttl_ms = None if hint.ttl_s is None else milliseconds(hint.ttl_s)
            return KvRequest(KvOp.PIN, hint.session_id, MAIN_BRANCH, ttl_ms, MODES[hint.yields_to])
        case KvAction.RELEASE:
            return KvRequest(KvOp.RELEASE, hint.session_id)
        case KvAction.DEMOTE:
            return KvRequest(KvOp.RECYCLE, hint.session_id)
        case KvAction.SWAP_OUT:
            return KvRequest(KvOp.DEMOTE, hint.session_id)
        case _:
            assert_never(hint.action)


def milliseconds(seconds: float) -> int:
    """At least one: none would be no lease."""
    return max(1, round(seconds * 1000))


def answer_of(backend: str, answer: KvAnswer) -> HintAnswered | None:
    """As the simulated engine answers: what is kept or swapped out, and nothing else. Of a session whose turn
    runs nothing is kept yet, and nobody knows how much will be."""
    if answer.op not in (KvOp.PIN, KvOp.DEMOTE):
        return None
    is_running = answer.status is KvStatus.REJECTED and answer.reason == "running"
    was_done = answer.status in (KvStatus.ACCEPTED, KvStatus.CLIPPED)
    kept = answer.tokens if was_done else 0
    return HintAnswered(answer.session, backend, None if is_running else kept)


class HintSender:
    """The hints of one backend.

    Args:
        max_sessions: that are remembered to have been there, to be told when they end.
        expiry_s: how long.
    """

    def __init__(
        self,
        patch: BackendPatch,
        metrics: PatchMetrics,
        *,
        max_sessions: int,
        expiry_s: float,
        clock: Callable[[], float],
    ) -> None:
        self.backend = patch.backend
        self._patch = patch
        self._metrics = metrics
        self._max_sessions = max_sessions
        self._expiry_s = expiry_s
        self._clock = clock
        self._queue = HintQueue(MAX_WAITING, metrics.hint)
        self._has_some = asyncio.Event()
        self._sent_to: OrderedDict[str, float] = OrderedDict()
        """Sessions by the time of their latest turn there, the oldest first."""

    @property
    def waiting(self) -> int:
        return len(self._queue)

    @property
    def remembered(self) -> int:
        return len(self._sent_to)

    def hint(self, hint: HintKv) -> None:
        self._put(request_of(hint))

    def forwarded(self, session_id: str, *, is_side: bool) -> None:
        """A turn of the session goes there now; a side call says nothing about the session's own blocks."""
        if not self._patch.is_working:
            return
        now = self._clock()
        self._sent_to[session_id] = now
        self._sent_to.move_to_end(session_id)
        self._expire(now)
        if not is_side:
            self._queue.overtake(session_id)

    def forget(self, session_id: str, *, tells: bool = True) -> None:
        """It is over, and the backend should know if it ever heard of it; unless another replica tells it."""
        if self._sent_to.pop(session_id, None) is not None and tells:
            self._put(KvRequest(KvOp.END, session_id))

    async def run(
        self, client: PatchClient, knows: Callable[[str], bool], tell: Callable[[Event], None]
    ) -> None:
        """
        Args:
            knows: whether a session is still one of the policy's; of others no answer is told.
        """
        while True:
            await self._has_some.wait()
            self._has_some.clear()
            if batch := self._queue.take(MAX_BATCH):
                await self._send(batch, client, knows, tell)
                await asyncio.sleep(BATCH_INTERVAL_S)
            if len(self._queue):
                self._has_some.set()

    async def _send(
        self,
        batch: list[KvRequest],
        client: PatchClient,
        knows: Callable[[str], bool],
        tell: Callable[[Event], None],
    ) -> None:
        try:
            answers = await client.send(batch)
        except PatchFailed as exc:
            log.debug("%s: %d hints were lost: %s", self.backend, len(batch), exc)
            for request in batch:
                self._metrics.hint(request.op, Dropped.FAILED)
            return
        for request, answer in zip(batch, answers, strict=True):
            self._metrics.hint(request.op, answer.status)
            event = answer_of(self.backend, answer)
            if event is not None and knows(event.session_id):
                tell(event)

    def _put(self, request: KvRequest) -> None:
        capabilities = self._patch.capabilities
        if capabilities is None or request.op not in capabilities.ops:
            self._metrics.hint(request.op, Dropped.NO_PATCH)
            return
        self._queue.put(request)
        self._has_some.set()

    def _expire(self, now: float) -> None:
        oldest_s = now - self._expiry_s
        while len(self._sent_to) > self._max_sessions or next(iter(self._sent_to.values())) < oldest_s:
            self._sent_to.popitem(last=False)


class Hints:
    """The senders of all backends, as the dispatcher sees them."""

    def __init__(self, senders: Iterable[HintSender] = ()) -> None:
        self._senders = {sender.backend: sender for sender in senders}

    def add(self, sender: HintSender) -> None:
        self._senders[sender.backend] = sender

    def remove(self, backend: str) -> None:
        self._senders.pop(backend, None)

    def hint(self, hint: HintKv) -> None:
        if hint.backend in self._senders:
            self._senders[hint.backend].hint(hint)

    def forwarded(self, session_id: str, backend: str, *, is_side: bool) -> None:
        if backend in self._senders:
            self._senders[backend].forwarded(session_id, is_side=is_side)

    def forget(self, session_id: str, *, tells: bool = True) -> None:
        for sender in self._senders.values():
            sender.forget(session_id, tells=tells)

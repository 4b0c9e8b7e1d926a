"""Watches one backend for as long as the proxy runs: whether it has the patch, and its headroom.

One reading at a time from one source, never two counted: the patch's headroom where it works, else
``/metrics``. The patch is asked for at the start, when the backend comes back, when it was started anew,
when its headroom begins to fail, and now and then where there is none. A failed reading is replaced by one
of ``/metrics`` at once; the patch's is tried again with every reading, until it works or is gone.
"""

import asyncio
from collections.abc import Callable
from dataclasses import dataclass, replace

from backend_patch.protocol import Headroom
from marsproxy.core.events import BackendObserved, BackendUnreachable, Event
from marsproxy.headroom import MetricsPage
from marsproxy.patch import BackendPatch, Finding, HeadroomSource, PatchState, stepped_aside
from marsproxy.patch_client import PatchClient, PatchFailed
from marsproxy.patch_headroom import EndingsCursor, event_of, reading_of
from marsproxy.patch_metrics import PatchMetrics

RECHECK_S = 60.0
"""Between two questions to a backend without a patch for us: whoever answers for it while it is started anew
(an ingress, say) may hide that it was away."""


@dataclass(frozen=True, slots=True)
class Cadence:
    """Seconds between two readings."""

    metrics_s: float
    headroom_s: float


class BackendWatch:
    """
    Args:
        knows: whether a session is one of ours; endings of others' leases are not told.
        tell: gives the policy an event.
    """

    def __init__(
        self,
        patch: BackendPatch,
        client: PatchClient,
        page: MetricsPage,
        metrics: PatchMetrics,
        cadence: Cadence,
        *,
        kv_tokens: int | None,
        clock: Callable[[], float],
        knows: Callable[[str], bool],
        tell: Callable[[Event], None],
    ) -> None:
        self._patch = patch
        self._client = client
        self._page = page
        self._metrics = metrics
        self._cadence = cadence
        self._kv_tokens = kv_tokens
        self._clock = clock
        self._knows = knows
        self._tell = tell
        self._cursor = EndingsCursor()
        self._must_ask = True
        self._asked_s = 0.0
        self._told: BackendObserved | None = None
        self._told_s = 0.0

    async def run(self) -> None:
        while True:
            next_in_s = await self.look()
            await asyncio.sleep(next_in_s)

    async def look(self) -> float:
        """Take one reading and tell it. Returns the seconds until the next."""
        if self._must_ask or self._is_due():
            self._must_ask, self._asked_s = False, self._clock()
            self._patch.found(await self._client.ask())
        if self._patch.is_working and await self._has_read_headroom():
            return self._cadence.headroom_s
        await self._read_page()
        return self._cadence.metrics_s

    def _is_due(self) -> bool:
        match self._patch.finding.state:
            case PatchState.UNKNOWN:
                return True
            case PatchState.STOCK | PatchState.TOO_NEW:
                return self._clock() - self._asked_s >= RECHECK_S
        return False

    async def _has_read_headroom(self) -> bool:
        capabilities = self._patch.capabilities
        assert capabilities is not None, "it works"
        try:
            headroom = await self._client.headroom(self._cursor.after)
            reading = reading_of(self._patch.backend, headroom, capabilities, self._kv_tokens)
        except (PatchFailed, ValueError):
            self._must_ask = self._patch.source is HeadroomSource.PATCH
            return False
        if (why := stepped_aside(headroom)) is not None:
            self._patch.found(Finding(PatchState.PASSTHROUGH, why, capabilities))
            return False
        self._must_ask = self._cursor.has_restarted(headroom)
        self._patch.reads_from(HeadroomSource.PATCH)
        self._tell_endings(headroom)
        self._observed(reading)
        return True

    async def _read_page(self) -> None:
        seen = await self._page.read()
        if isinstance(seen, BackendUnreachable):
            self._must_ask = True
            self._told = None
            self._patch.reads_from(HeadroomSource.NONE)
            self._metrics.set_leased_tokens(None)
            self._tell(seen)
        else:
            self._patch.reads_from(HeadroomSource.METRICS)
            self._observed(replace(seen, takes_hints=self._patch.is_working))

    def _tell_endings(self, headroom: Headroom) -> None:
        endings, missed = self._cursor.take(headroom)
        self._metrics.endings_missed(missed)
        for ending in endings:
            event = event_of(self._patch.backend, ending)
            if event is not None and self._knows(event.session_id):
                self._metrics.lease_ended(event)
                self._tell(event)

    def _observed(self, reading: BackendObserved) -> None:
        """Tell what is new; what is not, only as often as a stock backend would be read."""
        now = self._clock()
        if reading != self._told or now - self._told_s >= self._cadence.metrics_s:
            self._told, self._told_s = reading, now
            self._metrics.set_leased_tokens(reading.kv_leased_tokens)
            self._tell(reading)

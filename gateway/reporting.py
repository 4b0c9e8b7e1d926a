"""Tells the proxy what the tools do: events of commands and headroom of the hosts.

Owns the buffer, its batches and their delivery. Advice only: a proxy that is slow, wrong or gone costs
events (counted), never a command. A batch is sent again until it is taken, so it may arrive twice; a
newer one never arrives before it.
"""

import asyncio
import logging
from collections import deque
from collections.abc import Callable, Sequence

import httpx
import msgspec

from gateway.listeners import ToolRun
from gateway.protocol import ToolReport
from marsproxy.core.events import ToolHostsObserved, ToolObserved, ToolPhase

log = logging.getLogger(__name__)

REPORT_PATH = "/mars/v1/tools"

_BATCH_S = 0.03
"""Events wait so long for company. The proxy predicts gaps of 0.1 s and more with them."""
_MAX_BATCH = 500
_MAX_BUFFER = 20_000
"""About a minute of 100 commands a second."""
_HEADROOM_S = 1.0
"""Longest silence while a command is queued or running."""
_IDLE_HEADROOM_S = 10.0
"""Longest silence otherwise: the proxy tells an idle gateway from a dead one."""
_TIMEOUT_S = 2.0
_RETRY_S = (0.2, 5.0)
"""First and longest pause before a batch is sent again."""


class Reporter:
    """A listener of commands. ``run`` delivers until it is cancelled."""

    def __init__(
        self,
        proxy_url: str,
        token: str | None,
        headroom: Callable[[], ToolHostsObserved],
        clock: Callable[[], float],
        hosts: Callable[[], Sequence[ToolHostsObserved]] = tuple,
    ) -> None:
        """``headroom`` speaks of all hosts together, ``hosts`` of those that can be told apart."""
        self.dropped_events = 0
        self.failed_posts = 0
        self._url = proxy_url.rstrip("/") + REPORT_PATH
        self._headers = {"Content-Type": "application/json"}
        if token is not None:
            self._headers["Authorization"] = f"Bearer {token}"
        self._headroom = headroom
        self._hosts = hosts
        self._clock = clock
        self._events: deque[ToolObserved] = deque()
        self._unsent: list[ToolObserved] = []
        """The batch under way, until the proxy has taken it."""
        self._has_events = asyncio.Event()

    def queued(self, run: ToolRun) -> None:
        self._add(run, ToolPhase.QUEUED)

    def started(self, run: ToolRun) -> None:
        self._add(run, ToolPhase.STARTED)

    def finished(self, run: ToolRun) -> None:
        self._add(run, ToolPhase.FINISHED)

    async def run(self) -> None:
        async with self._client() as client:
            while True:
                await self._until_due()
                await self._deliver(client)

    async def flush(self) -> None:
        """Send what is left, each batch once, at shutdown."""
        async with self._client() as client:
            while self._unsent or self._events:
                if await self._post(client) is not None:
                    return

    def _client(self) -> httpx.AsyncClient:
        return httpx.AsyncClient(timeout=_TIMEOUT_S, headers=self._headers, trust_env=False)

    async def _until_due(self) -> None:
        observed = self._headroom()
        is_idle = not observed.running and not observed.queued
        try:
            async with asyncio.timeout(_IDLE_HEADROOM_S if is_idle else _HEADROOM_S):
                await self._has_events.wait()
        except TimeoutError:
            return
        await asyncio.sleep(_BATCH_S)

    async def _deliver(self, client: httpx.AsyncClient) -> None:
        pause_s, longest_s = _RETRY_S
        while (failure := await self._post(client)) is not None:
            log.log(
                logging.WARNING if pause_s == _RETRY_S[0] else logging.DEBUG, "report not taken: %s", failure
            )
            await asyncio.sleep(pause_s)
            pause_s = min(pause_s * 2, longest_s)

    def _batch(self) -> list[ToolObserved]:
        """The one that is under way, or else the next one."""
        if not self._unsent:
            self._unsent = [self._events.popleft() for _ in range(min(_MAX_BATCH, len(self._events)))]
        if not self._events:
            self._has_events.clear()
        return self._unsent

    async def _post(self, client: httpx.AsyncClient) -> str | None:
        """None when the batch is dealt with, else why it should be sent again."""
        batch = self._batch()
        body = msgspec.json.encode(ToolReport(batch, self._headroom(), list(self._hosts())))
        try:
            response = await client.post(self._url, content=body)
        except httpx.HTTPError as error:
            self.failed_posts += 1
            return type(error).__name__
        if not response.is_success:
            self.failed_posts += 1
            if response.status_code >= 500 or response.status_code == 429:
                return f"status {response.status_code}"
            self.dropped_events += len(batch)  # It would be refused again.
            log.warning("report refused: status %d", response.status_code)
        self._unsent = []
        return None

    def _add(self, record: ToolRun, phase: ToolPhase) -> None:
        if len(self._events) >= _MAX_BUFFER:
            self._events.popleft()
            self.dropped_events += 1
        self._events.append(_event(record, phase, self._clock()))
        self._has_events.set()


def _event(record: ToolRun, phase: ToolPhase, now: float) -> ToolObserved:
    return ToolObserved(
        exec_id=record.id,
        phase=phase,
        gateway_session=record.session,
        llm_session=record.labels.get("llm_session"),
        tool_call_id=record.labels.get("tool_call_id"),
        command_digest=record.command_digest,
        queue_s=None if phase is ToolPhase.QUEUED else record.queue_s(now),
        run_s=record.run_s(now) if phase is ToolPhase.FINISHED else None,
        exit_code=record.exit_code,
        tool_signature=record.program,
        memory_peak_mb=record.max_rss_mb,
        principal=record.tenant or None,
        host=record.host,
    )

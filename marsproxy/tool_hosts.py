"""Asks a gateway how busy its hosts are, for as long as it runs: ``--gateway URL``.

A gateway that is told the proxy's address reports by itself, and at once; this is for one that is not.
Degrades: a missed answer tells nothing, and what was known goes stale.
"""

import asyncio
from collections.abc import Callable, Iterable

import httpx
import msgspec

from marsproxy.core.events import Event, ToolHostsObserved


class Host(msgspec.Struct):
    """Of the gateway's ``GET /v1/hosts``, as far as admission cares."""

    slots: float
    running: int
    queued: int
    memory_available_mb: int | None = None
    memory_total_mb: int | None = None
    cpu_pressure: float | None = None
    memory_pressure: float | None = None
    queue_wait_s: float | None = None


class HostList(msgspec.Struct):
    hosts: list[Host]


def headroom_of(page: bytes) -> ToolHostsObserved:
    """All hosts together: memory is known if it is known of each, pressure and wait are the worst host's.

    Raises:
        msgspec.MsgspecError: this is no gateway's answer.
    """
    hosts = msgspec.json.decode(page, type=HostList).hosts
    return ToolHostsObserved(
        cores=sum(host.slots for host in hosts),
        running=sum(host.running for host in hosts),
        queued=sum(host.queued for host in hosts),
        memory_available_mb=_sum(host.memory_available_mb for host in hosts),
        memory_total_mb=_sum(host.memory_total_mb for host in hosts),
        cpu_pressure=_worst(host.cpu_pressure for host in hosts),
        memory_pressure=_worst(host.memory_pressure for host in hosts),
        queue_wait_s=_worst(host.queue_wait_s for host in hosts),
    )


def _sum(values: Iterable[int | None]) -> int | None:
    total = 0
    for value in values:
        if value is None:
            return None
        total += value
    return total


def _worst(values: Iterable[float | None]) -> float | None:
    return max((value for value in values if value is not None), default=None)


class ToolHostsPoller:
    """Reads one gateway at an interval.

    Args:
        token: bearer token to send; None sends none.
    """

    def __init__(
        self,
        client: httpx.AsyncClient,
        tell: Callable[[Event], None],
        *,
        url: str,
        token: str | None,
        interval_s: float,
    ) -> None:
        self._client = client
        self._tell = tell
        self._url = f"{url.rstrip('/')}/v1/hosts"
        self._headers = {} if token is None else {"authorization": f"Bearer {token}"}
        self._interval_s = interval_s

    async def run(self) -> None:
        while True:
            if (seen := await self.read()) is not None:
                self._tell(seen)
            await asyncio.sleep(self._interval_s)

    async def read(self) -> ToolHostsObserved | None:
        try:
            answer = await self._client.get(self._url, headers=self._headers)
            answer.raise_for_status()
            return headroom_of(answer.content)
        except (httpx.HTTPError, msgspec.MsgspecError):
            return None

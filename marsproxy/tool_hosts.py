"""Asks a gateway how busy its hosts are, for as long as it runs: ``--gateway URL``.

A gateway that is told the proxy's address reports by itself, and at once; this is for one that is not.
Degrades: a missed answer tells nothing, and what was known goes stale.
"""

import asyncio
from collections.abc import Callable

import httpx
import msgspec

from marsproxy.core.events import Event, ToolHostsObserved
from marsproxy.core.headroom import ALL_HOSTS


class Host(msgspec.Struct):
    """Of the gateway's ``GET /v1/hosts``, as far as admission cares."""

    slots: float
    running: int
    queued: int
    name: str = ALL_HOSTS
    memory_available_mb: int | None = None
    memory_total_mb: int | None = None
    cpu_pressure: float | None = None
    memory_pressure: float | None = None
    queue_wait_s: float | None = None


class HostList(msgspec.Struct):
    hosts: list[Host]


def hosts_of(page: bytes) -> list[ToolHostsObserved]:
    """Each host. Its slots are the cores that the gateway hands out.

    Raises:
        msgspec.MsgspecError: this is no gateway's answer.
    """
    return [
        ToolHostsObserved(
            host=host.name,
            cores=host.slots,
            running=host.running,
            queued=host.queued,
            memory_available_mb=host.memory_available_mb,
            memory_total_mb=host.memory_total_mb,
            cpu_pressure=host.cpu_pressure,
            memory_pressure=host.memory_pressure,
            queue_wait_s=host.queue_wait_s,
        )
        for host in msgspec.json.decode(page, type=HostList).hosts
    ]


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
            for host in await self.read():
                self._tell(host)
            await asyncio.sleep(self._interval_s)

    async def read(self) -> list[ToolHostsObserved]:
        try:
            answer = await self._client.get(self._url, headers=self._headers)
            answer.raise_for_status()
            return hosts_of(answer.content)
        except (httpx.HTTPError, msgspec.MsgspecError):
            return []

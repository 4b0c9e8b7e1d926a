"""Asks a gateway how busy its hosts are, for as long as it runs: ``--gateway URL``.

A gateway that is told the proxy's address reports by itself, and at once; this is for one that is not.
Degrades: a missed answer tells nothing, and what was known goes stale.
"""

import asyncio
from collections.abc import Callable

import httpx
import msgspec

from marsproxy.core.events import Event, ToolHostsObserved


class Host(msgspec.Struct):
    """Of the gateway's ``GET /v1/hosts``, as far as admission cares."""

    slots: float
    running: int
    queued: int
    memory_available_mb: int | None = None


class HostList(msgspec.Struct):
    hosts: list[Host]


def headroom_of(page: bytes) -> ToolHostsObserved:
    """All hosts together. Memory is known if it is known of each.

    Raises:
        msgspec.MsgspecError: this is no gateway's answer.
    """
    hosts = msgspec.json.decode(page, type=HostList).hosts
    memory_mb = [host.memory_available_mb for host in hosts if host.memory_available_mb is not None]
    return ToolHostsObserved(
        cores=sum(host.slots for host in hosts),
        running=sum(host.running for host in hosts),
        queued=sum(host.queued for host in hosts),
        memory_available_mb=sum(memory_mb) if len(memory_mb) == len(hosts) else None,
    )


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

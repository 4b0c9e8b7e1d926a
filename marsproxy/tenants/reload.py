"""Keeps the door, and the limits that all replicas share, as the tenants file says.

The file is read again when it changes (its time, size or inode, looked at every few seconds) and on SIGHUP.
One that is wrong is refused as a whole, with a line that says where, and what held before goes on holding.

Each replica checks keys by its own copy of the file. The limits are told by the one that leads, whenever
they are not what the policy has: after the start, after a change, after another took the lead.
"""

import asyncio
import logging
import signal
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager, suppress
from pathlib import Path
from typing import Protocol

from marsproxy.core.events import Event, TenantLimits, TenantsChanged
from marsproxy.core.settings import ConfigError
from marsproxy.metrics import Metrics
from marsproxy.tenants.door import Door
from marsproxy.tenants.file import Tenant, read_tenants

log = logging.getLogger(__name__)

CHECK_INTERVAL_S = 2.0
"""How soon a change is seen: one stat of a file."""

Mark = tuple[int, int, int]
"""What tells one content of the file from the next, without reading it."""


class SharedLimits(Protocol):
    """The policy's side of it."""

    @property
    def leads(self) -> bool:
        """Whether this replica is to tell what any could."""

    @property
    def told(self) -> tuple[TenantLimits, ...]:
        """The limits that hold."""

    def tell(self, event: Event) -> None: ...


class TenantsFile:
    """
    Args:
        path: of the file, which must be right at the start.

    Raises:
        ConfigError: it is not.
    """

    def __init__(self, path: Path, door: Door, metrics: Metrics) -> None:
        self._path = path
        self._door = door
        self._metrics = metrics
        self._mark: Mark | None = _mark_of(path)
        self.tenants: Sequence[Tenant] = ()
        self._take(read_tenants(path))

    async def run(self, shared: SharedLimits, interval_s: float = CHECK_INTERVAL_S) -> None:
        """Until it is cancelled."""
        is_asked = asyncio.Event()
        with _on_hangup(is_asked.set):
            while True:
                self.share(shared)
                with suppress(TimeoutError):
                    async with asyncio.timeout(interval_s):
                        await is_asked.wait()
                await self._look(is_asked=is_asked.is_set())
                is_asked.clear()

    def share(self, shared: SharedLimits) -> None:
        """See to it that the policy has these limits."""
        limits = tuple(tenant.limits for tenant in self.tenants)
        if shared.leads and shared.told != limits:
            shared.tell(TenantsChanged(limits))

    async def _look(self, *, is_asked: bool) -> None:
        """In a thread: a file may lie on a network."""
        mark = await asyncio.to_thread(_mark_of, self._path)
        if mark == self._mark and not is_asked:
            return
        self._mark = mark
        try:
            tenants = await asyncio.to_thread(read_tenants, self._path)
        except ConfigError as error:
            self._metrics.tenants_read(is_taken=False)
            log.error("%s; the tenants stay as they were", error)
            return
        self._take(tenants)

    def _take(self, tenants: tuple[Tenant, ...]) -> None:
        self.tenants = tenants
        self._door.guard(tenants)
        self._metrics.tenants_read(is_taken=True)
        keys = sum(len(tenant.keys) for tenant in tenants)
        log.info("%d tenants with %d keys", len(tenants), keys)


def _mark_of(path: Path) -> Mark | None:
    """None for a file that is not there."""
    try:
        found = path.stat()
    except OSError:
        return None
    return found.st_mtime_ns, found.st_size, found.st_ino


@contextmanager
def _on_hangup(call: Callable[[], None]) -> Iterator[None]:
    """SIGHUP ends a process that does not expect it."""
    loop = asyncio.get_running_loop()
    loop.add_signal_handler(signal.SIGHUP, call)
    try:
        yield
    finally:
        loop.remove_signal_handler(signal.SIGHUP)

"""The configured hosts: each with its client, its queue and its last reading; draining, gone and back."""

from collections.abc import Iterator

from gateway.host import CommandHost
from gateway.protocol import HostStatus
from marsproxy.core.events import ToolHostsObserved


class Host:
    """One host."""

    name: str
    client: CommandHost
    is_draining: bool


class Hosts:
    def __iter__(self) -> Iterator[Host]:
        raise NotImplementedError

    def get(self, name: str) -> Host:
        """Raises Refusal 404 ``host_not_found``."""
        raise NotImplementedError

    def drain(self, name: str, *, is_draining: bool) -> HostStatus:
        """Start nothing new on it (what runs goes on), or take it back. Raises Refusal 404."""
        raise NotImplementedError

    def statuses(self) -> list[HostStatus]:
        raise NotImplementedError

    def observe(self) -> ToolHostsObserved:
        """All together, for the proxy."""
        raise NotImplementedError

"""What discovery finds, and what every way of finding it is to those who use it.

A backend's name is scheme, host and port of its URL, so a name that another replica has found means the same
server here. Must not know who uses what was found.
"""

from collections.abc import Awaitable, Callable, Sequence
from dataclasses import dataclass
from typing import Protocol

from yarl import URL

from marsproxy.errors import public_name

MAX_ENDPOINTS = 256
"""Of one source: what is found comes from outside, and each costs connections, tasks and metrics. More than
that many vLLMs behind one proxy is a mistake in a selector."""


@dataclass(frozen=True, slots=True)
class Endpoint:
    """One server that may be used."""

    url: str
    """As configured, with path and credentials, but for host and port."""
    is_terminating: bool = False
    """It is about to go, and still answers."""

    @property
    def name(self) -> str:
        return public_name(self.url)


Found = Callable[[Sequence[Endpoint]], Awaitable[None]]
"""Is told all endpoints of a source, in an order that does not change by itself."""


class Discovery(Protocol):
    """One source of backends."""

    @property
    def source(self) -> str:
        """As it is shown: no credentials."""

    async def run(self, found: Found) -> None:
        """Tell what there is whenever it changes, until cancelled. Without an answer nothing changes: what
        was found last stays, and whether that answers is seen by asking it."""

    def look_again(self) -> None:
        """Somebody knows of a backend that was not found here yet: do not wait for the next look."""


class DiscoveryEvents(Protocol):
    """Told of what the metrics count."""

    def looked(self, source: str, found: int | None) -> None:
        """None: it could not be asked."""


def at(url: str, scheme: str, host: str, port: int | None) -> Endpoint:
    """The configured URL, pointing at another host.

    Raises:
        ValueError: that is no host.
    """
    return Endpoint(str(URL(url).with_scheme(scheme).with_host(host).with_port(port)))

"""What the words of ``--backend`` mean: a server, or a place to ask for servers.

Owns the forms and their errors; asks nobody.
"""

from dataclasses import dataclass
from typing import Literal
from urllib.parse import urlsplit

ALLOWED = (
    "http://HOST[:PORT], https://HOST[:PORT], dns+http://NAME[:PORT], srv+http://NAME, "
    "k8s+http://SERVICE.NAMESPACE[:PORT]"
)
Way = Literal["static", "dns", "srv", "k8s"]
WAYS: dict[str, tuple[Way, str]] = {
    "http": ("static", "http"),
    "https": ("static", "https"),
    "dns+http": ("dns", "http"),
    "srv+http": ("srv", "http"),
    "k8s+http": ("k8s", "http"),
}
"""Not with https: what is found is an address, and no certificate would be for it."""


@dataclass(frozen=True, slots=True)
class Source:
    way: Way
    scheme: str
    """Of the servers that are found there."""
    url: str
    """As configured."""
    host: str
    port: int | None

    @property
    def service(self) -> tuple[str, str]:
        """Name and namespace, of the Kubernetes one."""
        name, _, namespace = self.host.partition(".")
        return name, namespace.partition(".")[0]


def read_source(text: str) -> Source:
    """
    Raises:
        ValueError: it is none; says what is allowed.
    """
    try:
        parts = urlsplit(text)
        way, scheme = WAYS[parts.scheme]
        source = Source(way, scheme, text, parts.hostname or "", parts.port)
    except (KeyError, ValueError) as exc:
        raise ValueError(f"not a usable URL; allowed: {ALLOWED}") from exc
    if not source.host or source.port == 0:
        raise ValueError(f"not a usable URL; allowed: {ALLOWED}")
    if way == "srv" and source.port is not None:
        raise ValueError("an SRV record says the port itself; allowed: srv+http://NAME")
    if way == "k8s" and not all(source.service):
        raise ValueError("no namespace; allowed: k8s+http://SERVICE.NAMESPACE[:PORT]")
    return source

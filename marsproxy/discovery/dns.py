"""Backends by DNS: the addresses of a name, or the targets of an SRV record.

Asks again when the answer's TTL is over, within bounds. A name that has no answer any more keeps those that
it had: a resolver that is being restarted says the same as one that knows of none, and a server that is gone
is seen by asking it.
"""

import asyncio
import logging
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Protocol

import dns.asyncresolver
import dns.exception
import dns.rdatatype
import dns.resolver
from dns.rrset import RRset

from marsproxy.core.settings import ConfigError
from marsproxy.discovery.endpoint import MAX_ENDPOINTS, DiscoveryEvents, Endpoint, Found, at
from marsproxy.discovery.source import Source
from marsproxy.errors import public_name

log = logging.getLogger(__name__)

LEAST_INTERVAL_S = 1.0
"""Between two questions, whatever the TTL: that of some service registries is 0."""
QUESTION_TIMEOUT_S = 5.0
"""For all tries of one question; resolv.conf's own default is two tries of 5 s, and there is no hurry."""


@dataclass(frozen=True, slots=True)
class Target:
    """Where a name points."""

    host: str
    port: int | None = None
    """None where the record does not say."""


@dataclass(frozen=True, slots=True)
class Answer:
    targets: Sequence[Target]
    ttl_s: float


class NoAnswer(Exception):
    """Nobody could say, or there is nothing under that name."""


class Resolver(Protocol):
    async def addresses(self, name: str) -> Answer:
        """
        Raises:
            NoAnswer
        """

    async def services(self, name: str) -> Answer:
        """
        Raises:
            NoAnswer
        """


class DnsResolver:
    """
    Args:
        server: address and port to ask; None is what resolv.conf says.

    Raises:
        ConfigError: it says nothing.
    """

    def __init__(self, server: tuple[str, int] | None = None) -> None:
        try:
            self._resolver = dns.asyncresolver.Resolver(configure=server is None)
        except dns.resolver.NoResolverConfiguration as exc:
            raise ConfigError("discovery.dns_server: resolv.conf names none; allowed: an address") from exc
        self._resolver.lifetime = QUESTION_TIMEOUT_S
        if server is not None:
            self._resolver.nameservers = [server[0]]
            self._resolver.port = server[1]

    async def addresses(self, name: str) -> Answer:
        """IPv4, and IPv6 only where there is no other: a host with both would be two backends."""
        for kind in (dns.rdatatype.A, dns.rdatatype.AAAA):
            found = await self._ask(name, kind)
            if found is not None:
                return Answer([Target(record.address) for record in found], found.ttl)
        raise NoAnswer(name)

    async def services(self, name: str) -> Answer:
        """Those that come first by priority. Their weights say nothing to us: room decides."""
        found = await self._ask(name, dns.rdatatype.SRV)
        if found is None:
            raise NoAnswer(name)
        first = min(record.priority for record in found)
        targets = [
            Target(record.target.to_text(omit_final_dot=True), record.port)
            for record in found
            if record.priority == first
        ]
        return Answer(targets, found.ttl)

    async def _ask(self, name: str, kind: dns.rdatatype.RdataType) -> RRset | None:
        """None where the name has no such record."""
        try:
            found = await self._resolver.resolve(name, kind, raise_on_no_answer=False, search=True)
        except dns.resolver.NXDOMAIN:
            return None
        except (dns.exception.DNSException, OSError) as exc:
            raise NoAnswer(type(exc).__name__) from exc
        return found.rrset


class DnsDiscovery:
    """
    Args:
        interval_s: longest time between two questions.
    """

    def __init__(
        self, source: Source, resolver: Resolver, events: DiscoveryEvents, *, interval_s: float
    ) -> None:
        self.source = public_name(source.url)
        self._source = source
        self._resolver = resolver
        self._events = events
        self._interval_s = interval_s
        self._wakes = asyncio.Event()
        self._is_failing = False

    def look_again(self) -> None:
        self._wakes.set()

    async def run(self, found: Found) -> None:
        last: list[Endpoint] = []
        while True:
            self._wakes.clear()
            endpoints, next_in_s = await self._look()
            if endpoints and endpoints != last:
                last = endpoints
                await found(endpoints)
            await self._pause(next_in_s)

    async def _pause(self, seconds: float) -> None:
        """At least the least: what wakes it may do so with every request."""
        await asyncio.sleep(min(LEAST_INTERVAL_S, seconds))
        try:
            async with asyncio.timeout(max(0.0, seconds - LEAST_INTERVAL_S)):
                await self._wakes.wait()
        except TimeoutError:
            pass

    async def _look(self) -> tuple[list[Endpoint], float]:
        """Sorted, for resolvers rotate their answers; and the seconds until the next look."""
        name = self._source.host
        is_srv = self._source.way == "srv"
        try:
            answer = await (self._resolver.services(name) if is_srv else self._resolver.addresses(name))
        except NoAnswer as exc:
            self._failed(str(exc))
            return [], min(self._interval_s, LEAST_INTERVAL_S)
        endpoints = sorted({self._endpoint(target) for target in answer.targets}, key=lambda each: each.name)
        self._events.looked(self.source, len(endpoints))
        if self._is_failing:
            self._is_failing = False
            log.info("%s: found again", self.source)
        return endpoints[:MAX_ENDPOINTS], min(max(answer.ttl_s, LEAST_INTERVAL_S), self._interval_s)

    def _endpoint(self, target: Target) -> Endpoint:
        port = self._source.port if target.port is None else target.port
        return at(self._source.url, self._source.scheme, target.host, port)

    def _failed(self, why: str) -> None:
        self._events.looked(self.source, None)
        if not self._is_failing:
            self._is_failing = True
            log.warning("%s: cannot be found (%s); those that were found before stay", self.source, why)

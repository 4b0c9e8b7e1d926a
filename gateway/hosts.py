"""The configured hosts: each with its client, its queue and its last reading; draining, gone and back.

Owns what is known of each host now, and who there is told that he may start. It must not know HTTP or the
states of commands.
"""

import asyncio
import contextlib
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field, replace

from gateway.admission import Ask, HostQueue, Offer
from gateway.errors import Refusal, host_not_found, invalid
from gateway.host import CommandHost, ExecUse, Reading
from gateway.placement import Candidate, place
from gateway.protocol import HostStatus
from marsproxy.core.events import ToolHostsObserved
from marsproxy.core.headroom import ALL_HOSTS, together

_GLANCE_S = 0.02
"""Between looks at connections while a gateway starts."""


@dataclass(frozen=True, slots=True)
class HostPlan:
    """What the operator said of one host."""

    client: CommandHost
    queue: HostQueue
    labels: Mapping[str, str] = field(default_factory=dict)


class Host:
    """One host. Its queue grants; whoever waits learns of it by a future."""

    def __init__(self, plan: HostPlan, clock: Callable[[], float]) -> None:
        self.name = plan.client.name
        self.client = plan.client
        self.queue = plan.queue
        self.labels = plan.labels
        self.session_count = 0
        self.asked = asyncio.Event()
        """What it runs is on our records."""
        self.is_draining = False
        self._is_gone = False
        self._clock = clock
        self._reading: Reading | None = None
        self._waiting: dict[str, asyncio.Future[bool]] = {}

    def __repr__(self) -> str:
        return f"<Host {self.name} [{self.client.state}] {self.queue!r}>"

    @property
    def is_gone(self) -> bool:
        return self._is_gone

    @property
    def may_still_tell(self) -> bool:
        """It was not asked what it runs, and no connection to it has failed."""
        return not self.asked.is_set() and self.client.state != "down"

    @property
    def reading(self) -> Reading | None:
        """None when there is none that the queue believes."""
        return self._reading if self.queue.has_fresh_reading(self._clock()) else None

    @property
    def is_busy(self) -> bool:
        return self.queue.running > 0 or self.queue.queued > 0

    def offer(self, ask: Ask, granted: asyncio.Future[bool]) -> Offer:
        """``granted`` is done, true, when the slots are taken; whoever gives up before sets it false."""
        offer = self.queue.offer(ask, self._clock())
        if offer is Offer.GRANTED:
            granted.set_result(True)
        elif offer is Offer.QUEUED:
            self._waiting[ask.id] = granted
        return offer

    def end(self, id_: str) -> None:
        """Of whatever was offered and not refused, once."""
        self._waiting.pop(id_, None)
        self._grant(self.queue.end(id_, self._clock()))

    def adopt(self, ask: Ask) -> None:
        """It runs there already."""
        self.queue.adopt(ask, self._clock())

    def retry_after_s(self) -> float:
        return self.queue.retry_after_s(self._clock())

    def tick(self) -> None:
        """About once a second."""
        self._grant(self.queue.tick(self._clock()))

    def saw(self, reading: Reading | None) -> None:
        """None: it did not say."""
        if reading is None:
            self.tick()
            return
        self._reading = reading
        self._grant(self.queue.observe(reading, self._clock()))

    def measured(self, ask_id: str, use: ExecUse) -> None:
        """What one that the host does not know uses of it, as its caller says."""
        self.queue.measured(ask_id, use, self._clock())

    def lost(self) -> None:
        self._is_gone = True
        self._update_queue()

    def came_back(self) -> None:
        self._is_gone = False
        self._update_queue()

    def drain(self, *, is_draining: bool) -> None:
        self.is_draining = is_draining
        self._update_queue()

    def _update_queue(self) -> None:
        if self._is_gone or self.is_draining:
            self.queue.pause()
        else:
            self._grant(self.queue.resume(self._clock()))

    def _grant(self, ids: Sequence[str]) -> None:
        for id_ in ids:
            granted = self._waiting.pop(id_)
            if not granted.done():
                granted.set_result(True)

    def candidate(self) -> Candidate:
        """For a new session."""
        reading = self.reading or Reading()
        return Candidate(
            name=self.name,
            labels=self.labels,
            is_up=not self.is_gone and self.client.state == "up",
            is_draining=self.is_draining,
            slots=self.queue.slots,
            used=self.queue.used,
            queued=self.queue.queued,
            sessions=self.session_count,
            memory_total_mb=reading.memory_total_mb,
            memory_available_mb=reading.memory_available_mb,
            memory_reserved_mb=self.queue.memory_reserved_mb,
        )

    def observe(self) -> ToolHostsObserved:
        """For the proxy. ``cores`` are our slots: what we hand out is what there is to be had."""
        reading = self.reading or Reading()
        return ToolHostsObserved(
            host=self.name,
            cores=self.queue.slots,
            running=self.queue.running,
            queued=self.queue.queued,
            memory_available_mb=reading.memory_available_mb,
            memory_total_mb=reading.memory_total_mb,
            cpu_pressure=reading.cpu_pressure,
            memory_pressure=reading.memory_pressure,
            queue_wait_s=self.queue.wait_s(self._clock()),
        )

    def status(self) -> HostStatus:
        queue, reading = self.queue, self.reading or Reading()
        return HostStatus(
            name=self.name,
            state=self.client.state,
            labels=dict(self.labels),
            capabilities=self.client.capabilities,
            sessions=self.session_count,
            slots=queue.slots,
            slots_used=queue.used,
            memory_reserved_mb=queue.memory_reserved_mb,
            cores=reading.cores,
            running=queue.running,
            queued=queue.queued,
            queue_limit=queue.queue_limit,
            is_draining=self.is_draining,
            load_1m=reading.load_1m,
            memory_total_mb=reading.memory_total_mb,
            memory_available_mb=reading.memory_available_mb,
            cpu_pressure=reading.cpu_pressure,
            memory_pressure=reading.memory_pressure,
            queue_wait_s=queue.wait_s(self._clock()),
        )


class Hosts:
    def __init__(
        self, plans: Sequence[HostPlan], clock: Callable[[], float], adoption_timeout_s: float = 0.0
    ) -> None:
        """``adoption_timeout_s``: so long after now a host that was not reached may have commands from
        before."""
        assert plans, "a gateway without hosts runs nothing"
        self._hosts = {plan.client.name: Host(plan, clock) for plan in plans}
        assert len(self._hosts) == len(plans), "names of hosts are unique"
        self._clock = clock
        self._asked_by_s = clock() + adoption_timeout_s

    def __iter__(self) -> Iterator[Host]:
        return iter(self._hosts.values())

    def __len__(self) -> int:
        return len(self._hosts)

    @property
    def default(self) -> Host:
        """The first of the configuration, which is the gateway's own where it has one."""
        return next(iter(self))

    def find(self, name: str) -> Host | None:
        return self._hosts.get(name)

    def get(self, name: str) -> Host:
        """Raises Refusal 404 ``host_not_found``."""
        found = self.find(name)
        if found is None:
            raise host_not_found(name)
        return found

    @property
    def are_asked(self) -> bool:
        """What they run from before is on our records, or they were given time enough."""
        return all(host.asked.is_set() for host in self) or self._clock() >= self._asked_by_s

    async def wait_asked(self, timeout_s: float) -> None:
        """Until all are that did not fail to connect, or so long."""
        with contextlib.suppress(TimeoutError):
            async with asyncio.timeout(timeout_s):
                while any(host.may_still_tell for host in self):  # noqa: ASYNC110 - a state is no event
                    await asyncio.sleep(_GLANCE_S)

    def place(self, name: str | None, selector: Mapping[str, str], *, parent_host: str | None = None) -> Host:
        """For a new session. ``name``: that one or none; ``parent_host``: that one if it fits. Raises
        Refusal."""
        if name is not None and name not in self._hosts:
            raise invalid("host", f"no host {name!r}; there are {', '.join(self._hosts)}")
        if not any(selector.items() <= host.labels.items() for host in self):
            raise invalid("selector", "no host has these labels; GET /v1/hosts names them")
        candidates = [host.candidate() for host in self]
        placement = place(candidates, selector=selector, host=name, parent_host=parent_host)
        if placement.host is None:
            message = f"no host takes a session now: {placement.reason}"
            raise Refusal(503, "no_host", message, retry_after_s=5)
        return self._hosts[placement.host]

    def drain(self, name: str, *, is_draining: bool) -> HostStatus:
        """Start nothing new on it (what runs goes on), or take it back. Raises Refusal 404."""
        host = self.get(name)
        host.drain(is_draining=is_draining)
        return host.status()

    def statuses(self) -> list[HostStatus]:
        return [host.status() for host in self]

    def observe(self) -> ToolHostsObserved:
        """All together, for the proxy."""
        all_hosts = together(self.observe_each())
        return ToolHostsObserved(0, 0, 0) if all_hosts is None else replace(all_hosts, host=ALL_HOSTS)

    def observe_each(self) -> list[ToolHostsObserved]:
        """Those where something may start: the others are no room for anybody."""
        return [host.observe() for host in self if not host.is_gone and not host.is_draining]

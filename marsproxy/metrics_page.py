"""What ``/metrics`` shows: of one process its own metrics; of several workers, theirs together.

A scrape reaches one worker, whichever the kernel chose. Counters and histograms are sums over all workers,
those that are gone included, so that they never go back. Gauges mirror what all share, so those of whoever
answers are as good as any, and what it does not know another may; the few that each has its own of are
summed. Owns how pages become one, not how they travel.
"""

import math
from collections.abc import Awaitable, Callable, Iterator, Sequence
from typing import Protocol

import msgspec
from prometheus_client import CollectorRegistry
from prometheus_client.core import Metric
from prometheus_client.exposition import choose_encoder
from prometheus_client.registry import Collector

from marsproxy.metrics import Metrics

SUMMED_GAUGES = frozenset(
    (
        "mars_held_turns",  # each worker counts those whose connections it has
        "process_virtual_memory_bytes",
        "process_resident_memory_bytes",
        "process_open_fds",
        "process_max_fds",
    )
)
SUMMED_TYPES = frozenset(("counter", "histogram", "summary"))
EARLIEST_ENDINGS = ("_created", "process_start_time_seconds")
"""Times at which something began."""

Labels = tuple[tuple[str, str], ...]


class Family(msgspec.Struct, frozen=True, array_like=True):
    """One metric, as it travels between workers."""

    name: str
    text: str
    type: str
    unit: str
    samples: list[tuple[str, Labels, float]]


class MetricsView(Protocol):
    @property
    def own(self) -> Metrics:
        """Those of this process."""

    async def render(self, accept: str) -> tuple[str, bytes]:
        """Content type and body of the whole page."""


class OwnPage:
    """Of a process by itself."""

    def __init__(self, metrics: Metrics) -> None:
        self.own = metrics

    async def render(self, accept: str) -> tuple[str, bytes]:
        return self.own.render(accept)


class SharedPage:
    """Of one of several workers.

    Args:
        gather: gives the page of every worker, this one's first, then what is left of those gone.
    """

    def __init__(self, metrics: Metrics, gather: Callable[[], Awaitable[Sequence[bytes]]]) -> None:
        self.own = metrics
        self._gather = gather

    async def render(self, accept: str) -> tuple[str, bytes]:
        merged = _Merged(merge([decode(page) for page in await self._gather()]))
        registry = CollectorRegistry(auto_describe=False)
        registry.register(merged)
        encode_page, content_type = choose_encoder(accept)
        return content_type, encode_page(registry)


def encode(families: Sequence[Family]) -> bytes:
    return msgspec.msgpack.encode(families)


def decode(page: bytes) -> list[Family]:
    return msgspec.msgpack.decode(page, type=list[Family])


def own_families(metrics: Metrics) -> list[Family]:
    return [
        Family(
            metric.name,
            metric.documentation,
            metric.type,
            metric.unit,
            [(s.name, tuple(sorted(s.labels.items())), s.value) for s in metric.samples],
        )
        for metric in metrics.collect()
    ]


def merge(pages: Sequence[Sequence[Family]]) -> list[Family]:
    """
    Args:
        pages: in the order of whose gauges count.
    """
    found: dict[str, list[Family]] = {}
    for page in pages:
        for family in page:
            found.setdefault(family.name, []).append(family)
    return [_merged(same) for same in found.values()]


def remains(page: Sequence[Family]) -> list[Family]:
    """What of a worker's page outlives it: what it has counted."""
    return [family for family in page if family.type in SUMMED_TYPES]


def _merged(same: list[Family]) -> Family:
    first = same[0]
    sums = first.type in SUMMED_TYPES or first.name in SUMMED_GAUGES
    values: dict[tuple[str, Labels], float] = {}
    for family in same:
        for name, labels, value in family.samples:
            before = values.get((name, labels))
            if before is None or math.isnan(before):
                values[name, labels] = value
            elif name.endswith(EARLIEST_ENDINGS):
                values[name, labels] = min(before, value)
            elif sums and not math.isnan(value):
                values[name, labels] = before + value
    samples = [(name, labels, value) for (name, labels), value in values.items()]
    return Family(first.name, first.text, first.type, first.unit, samples)


class _Merged(Collector):
    def __init__(self, families: Sequence[Family]) -> None:
        self._families = families

    def collect(self) -> Iterator[Metric]:
        for family in self._families:
            metric = Metric(family.name, family.text, family.type, family.unit)
            for name, labels, value in family.samples:
                metric.add_sample(name, dict(labels), value)
            yield metric

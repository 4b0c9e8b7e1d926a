"""What the proxy tells Prometheus of the store: names, and how a status becomes them.

The counters are the status's own, read when somebody looks.
"""

import math
from collections.abc import Iterator

from prometheus_client import CollectorRegistry
from prometheus_client.core import CounterMetricFamily, GaugeMetricFamily, Metric
from prometheus_client.registry import Collector

from marsproxy.store.status import StoreState, StoreStatus

_COUNTERS = {
    "appends": "Batches of records that have their place in the common order",
    "records": "Records applied, of all replicas",
    "failed_records": "Records that could not be read or applied",
    "commands": "Commands sent to the store",
    "separations": "Times that the store was given up, and this replica went on alone",
    "given_up": "Times that the others gave this replica up",
    "adoptions": "Times that this replica took over the state of the others",
    "foundings": "Times that this replica's state became that of all",
}


class StoreMetrics(Collector):
    def __init__(self, registry: CollectorRegistry) -> None:
        self._status = StoreStatus()
        registry.register(self)

    def show(self, status: StoreStatus) -> None:
        """From now on."""
        self._status = status

    def collect(self) -> Iterator[Metric]:
        status = self._status
        states = GaugeMetricFamily("mars_store_state", "1 for the state of this replica", labels=["state"])
        for state in StoreState:
            states.add_metric([state.value], float(state is status.state))
        yield states
        yield _gauge("members", "Replicas that share the state, this one included", status.members)
        yield _gauge("leads", "1 while this replica tells what all can see", status.is_leader)
        yield _gauge("lag_seconds", "From a record's place in the order to here, the latest", status.lag_s)
        yield _gauge(
            "checkpoint_bytes", "Size of the latest checkpoint written here", status.checkpoint_bytes
        )
        yield _gauge("checkpoint_seconds", "Time that it took to make", status.checkpoint_s)
        for name, text in _COUNTERS.items():
            yield CounterMetricFamily(f"mars_store_{name}", text, value=getattr(status, name))


def _gauge(name: str, text: str, value: float | None) -> Metric:
    return GaugeMetricFamily(f"mars_store_{name}", text, value=math.nan if value is None else float(value))

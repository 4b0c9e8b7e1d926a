"""Reads a backend's ``/metrics``. Unknown is ``None``; a missed reading is said.

Degrades: a server without vLLM's metrics gives readings without numbers, and the policy then goes by its
fixed cap. vLLM's gauges stand still while it is idle (0.32), so their age is not to be read off them.
"""

from collections.abc import Iterable

import httpx
from prometheus_client.parser import text_string_to_metric_families

from marsproxy.backend_address import BackendAddress
from marsproxy.core.events import BackendObserved, BackendUnreachable

WANTED = (
    "vllm:cache_config_info",
    "vllm:kv_cache_usage_perc",
    "vllm:num_requests_running",
    "vllm:num_requests_waiting",
    "vllm:num_preemptions",
    "vllm:prefix_cache_queries",
    "vllm:prefix_cache_hits",
)
"""vLLM 0.28 to 0.33. Everything else on the page is skipped before it is parsed: the page has hundreds of
histogram lines, and parsing them all would stop the event loop for milliseconds every second."""

Sample = tuple[str, dict[str, str], float]


def read_metrics(backend: str, page: str, kv_tokens: int | None = None) -> BackendObserved:
    """One reading from a Prometheus page.

    Several engines behind one server (data parallel ranks) are added up; their KV use is weighed by
    nothing, since ranks of one server are of one size.

    Args:
        kv_tokens: size of the pool where it is configured instead of read.

    Raises:
        ValueError: the page is not Prometheus text.
    """
    samples = list(_wanted_samples(page))
    usage = _values(samples, "vllm:kv_cache_usage_perc")
    return BackendObserved(
        backend,
        kv_tokens_total=kv_tokens or _pool_tokens(samples),
        kv_used_ratio=sum(usage) / len(usage) if usage else None,
        running=_total(samples, "vllm:num_requests_running"),
        waiting=_total(samples, "vllm:num_requests_waiting"),
        preemptions_total=_counter(samples, "vllm:num_preemptions"),
        prefix_queries_total=_counter(samples, "vllm:prefix_cache_queries"),
        prefix_hits_total=_counter(samples, "vllm:prefix_cache_hits"),
    )


def _wanted_samples(page: str) -> Iterable[Sample]:
    lines = (line for line in page.splitlines() if line.startswith(WANTED))
    for family in text_string_to_metric_families("\n".join(lines) + "\n"):
        for sample in family.samples:
            yield sample.name, dict(sample.labels), sample.value


def _values(samples: list[Sample], name: str) -> list[float]:
    return [value for sample_name, _, value in samples if sample_name == name]


def _total(samples: list[Sample], name: str) -> int | None:
    values = _values(samples, name)
    return round(sum(values)) if values else None


def _counter(samples: list[Sample], name: str) -> int | None:
    """Counters end in ``_total``, unless whoever passes the page on writes them without."""
    total = _total(samples, f"{name}_total")
    return _total(samples, name) if total is None else total


def _pool_tokens(samples: list[Sample]) -> int | None:
    """Blocks times block size over all engines; None if an engine does not say (yet)."""
    total = 0
    for name, labels, _ in samples:
        if name == "vllm:cache_config_info":
            blocks, size = labels.get("num_gpu_blocks", ""), labels.get("block_size", "")
            if not (blocks.isdigit() and size.isdigit()):
                return None
            total += int(blocks) * int(size)
    return total or None


class MetricsPage:
    """The ``/metrics`` of one backend."""

    def __init__(
        self, backend: str, client: httpx.AsyncClient, address: BackendAddress, *, kv_tokens: int | None
    ) -> None:
        self._backend = backend
        self._client = client
        self._address = address
        self._kv_tokens = kv_tokens

    async def read(self) -> BackendObserved | BackendUnreachable:
        try:
            answer = await self._client.get(f"{self._address.base}/metrics", headers=self._address.headers)
            if answer.status_code == httpx.codes.NOT_FOUND:
                # Alive, but not a server that publishes metrics.
                return BackendObserved(self._backend, kv_tokens_total=self._kv_tokens)
            answer.raise_for_status()
            return read_metrics(self._backend, answer.text, self._kv_tokens)
        except (httpx.HTTPError, ValueError, OverflowError):
            return BackendUnreachable(self._backend)

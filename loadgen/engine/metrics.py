"""``/metrics`` with vLLM's names and labels, in a registry of its own.

Gauges and counters are read from the scheduler when scraped, so unlike vLLM's they are never stale on an
idle engine. Histograms are fed when a request ends; their times are the clock's, not the model's: at a
speed of 10 they are ten times shorter. Facts: vLLM 0.32 ``v1/metrics/loggers.py`` and ``buckets.py``.
"""

from collections.abc import Iterator

from prometheus_client import CollectorRegistry, Counter, Histogram, generate_latest
from prometheus_client.core import CounterMetricFamily, GaugeMetricFamily, Metric
from prometheus_client.registry import Collector

from loadgen.engine.realtime import RealTimeEngine
from loadgen.engine.requests import EngineRequest
from loadgen.engine.scheduler import Scheduler

FIRST_TOKEN_BUCKETS = (
    *(0.001, 0.005, 0.01, 0.02, 0.04, 0.06, 0.08, 0.1, 0.25, 0.5, 0.75, 1.0, 2.5, 5.0, 7.5),
    *(10.0, 20.0, 40.0, 80.0, 160.0, 640.0, 2560.0),
)
PER_TOKEN_BUCKETS = (
    *(0.01, 0.025, 0.05, 0.075, 0.1, 0.15, 0.2, 0.3, 0.4, 0.5, 0.75, 1.0, 2.5, 5.0, 7.5),
    *(10.0, 20.0, 40.0, 80.0),
)
LATENCY_BUCKETS = (
    *(0.3, 0.5, 0.8, 1.0, 1.5, 2.0, 2.5, 5.0, 10.0, 15.0, 20.0, 30.0, 40.0, 50.0, 60.0),
    *(120.0, 240.0, 480.0, 960.0, 1920.0, 7680.0),
)
TOKEN_BUCKETS = (
    *(1, 2, 5, 10, 20, 50, 100, 200, 500, 1000, 2000, 5000, 10_000, 20_000, 50_000, 100_000, 200_000),
)

LABELS = ("model_name", "engine")

COUNTERS = {
    "num_preemptions": ("preemptions", "Cumulative number of preemption from the engine."),
    "prompt_tokens": ("prompt_tokens", "Number of prefill tokens processed."),
    "generation_tokens": ("generation_tokens", "Number of generation tokens processed."),
    "prompt_tokens_cached": ("prompt_tokens_cached", "Number of cached prompt tokens (local + external)."),
    "prefix_cache_queries": (
        "prefix_cache_queries",
        "Prefix cache queries, in terms of number of queried tokens.",
    ),
    "prefix_cache_hits": ("prefix_cache_hits", "Prefix cache hits, in terms of number of cached tokens."),
}


class EngineMetrics:
    def __init__(self, model_name: str) -> None:
        self._registry = CollectorRegistry()
        self._labels = (model_name, "0")
        self._first_token = self._histogram(
            "time_to_first_token_seconds", "Histogram of time to first token in seconds.", FIRST_TOKEN_BUCKETS
        )
        self._per_token = self._histogram(
            "request_time_per_output_token_seconds",
            "Histogram of time_per_output_token_seconds per request.",
            PER_TOKEN_BUCKETS,
        )
        self._latency = self._histogram(
            "e2e_request_latency_seconds", "Histogram of e2e request latency in seconds.", LATENCY_BUCKETS
        )
        self._queue = self._histogram(
            "request_queue_time_seconds",
            "Histogram of time spent in WAITING phase for request.",
            LATENCY_BUCKETS,
        )
        self._prompt = self._histogram(
            "request_prompt_tokens", "Number of prefill tokens processed.", TOKEN_BUCKETS
        )
        self._generation = self._histogram(
            "request_generation_tokens", "Number of generation tokens processed.", TOKEN_BUCKETS
        )
        self._success = Counter(
            "vllm:request_success",
            "Count of successfully processed requests.",
            (*LABELS, "finished_reason"),
            registry=self._registry,
        )

    def watch(self, engine: RealTimeEngine) -> None:
        """Report this engine's gauges and counters from now on."""
        self._registry.register(_SchedulerCollector(engine, self._labels))

    def render(self) -> bytes:
        return generate_latest(self._registry)

    def observe_finish(self, request: EngineRequest, now: float) -> None:
        assert request.first_token_s is not None
        assert request.scheduled_s is not None
        self._success.labels(*self._labels, request.finish_reason).inc()
        self._first_token.observe(request.first_token_s - request.arrival_s)
        self._queue.observe(request.scheduled_s - request.arrival_s)
        self._latency.observe(now - request.arrival_s)
        self._prompt.observe(request.prompt_tokens)
        self._generation.observe(request.generated_tokens)
        if request.generated_tokens > 1:
            self._per_token.observe((now - request.first_token_s) / (request.generated_tokens - 1))

    def _histogram(self, name: str, documentation: str, buckets: tuple[float, ...]) -> Histogram:
        family = Histogram(f"vllm:{name}", documentation, LABELS, registry=self._registry, buckets=buckets)
        return family.labels(*self._labels)


class _SchedulerCollector(Collector):
    def __init__(self, engine: RealTimeEngine, labels: tuple[str, str]) -> None:
        self._engine = engine
        self._labels = labels

    def collect(self) -> Iterator[Metric]:
        scheduler = self._engine.scheduler
        waiting = len(scheduler.waiting)
        yield self._gauge(
            "vllm:num_requests_running",
            "Number of requests in model execution batches.",
            len(scheduler.running),
        )
        yield self._gauge("vllm:num_requests_waiting", "Number of requests waiting to be processed.", waiting)
        yield self._waiting_by_reason(waiting)
        yield self._gauge(
            "vllm:kv_cache_usage_perc",
            "KV-cache usage. 1 means 100 percent usage.",
            scheduler.kv_used_ratio,
        )
        for name, (field, documentation) in COUNTERS.items():
            yield self._counter(f"vllm:{name}", documentation, getattr(scheduler.totals, field))
        yield self._cache_config(scheduler)
        yield self._counter(
            "loadgen_engine_behind_seconds",
            "Time by which this machine was too slow for the speed asked of the engine.",
            self._engine.behind_s,
        )

    def _gauge(self, name: str, documentation: str, value: float) -> Metric:
        family = GaugeMetricFamily(name, documentation, labels=LABELS)
        family.add_metric(self._labels, value)
        return family

    def _counter(self, name: str, documentation: str, value: float) -> Metric:
        family = CounterMetricFamily(name, documentation, labels=LABELS)
        family.add_metric(self._labels, value)
        return family

    def _waiting_by_reason(self, waiting: int) -> Metric:
        family = GaugeMetricFamily(
            "vllm:num_requests_waiting_by_reason",
            "Number of waiting requests by reason.",
            labels=(*LABELS, "reason"),
        )
        family.add_metric((*self._labels, "capacity"), waiting)
        family.add_metric((*self._labels, "deferred"), 0)
        return family

    def _cache_config(self, scheduler: Scheduler) -> Metric:
        facts = {
            "block_size": str(scheduler.limits.block_tokens),
            "cache_dtype": "auto",
            "enable_prefix_caching": "True",
            "engine": "0",
            "num_cpu_blocks": "None",
            "num_gpu_blocks": str(scheduler.limits.kv_blocks),
        }
        family = GaugeMetricFamily(
            "vllm:cache_config_info", "Information of the LLMEngine CacheConfig", labels=list(facts)
        )
        family.add_metric(list(facts.values()), 1)
        return family

"""What a scraper sees."""

import math
import re

import pytest
from prometheus_client import CollectorRegistry
from prometheus_client.parser import text_string_to_metric_families

from marsproxy.core.commands import Reason
from marsproxy.core.events import Ending
from marsproxy.core.evidence import Level, TurnKind
from marsproxy.metrics import MAX_DECISIONS, Metrics


@pytest.fixture
def registry() -> CollectorRegistry:
    return CollectorRegistry()


@pytest.fixture
def metrics(registry: CollectorRegistry) -> Metrics:
    return Metrics(registry)


def test_two_proxies_in_one_process_do_not_share(metrics: Metrics) -> None:
    """Nothing is in the global registry."""
    other = CollectorRegistry()
    Metrics(other)
    metrics.rejected(Reason.QUEUE_FULL)
    assert other.get_sample_value("mars_rejects_total", {"reason": "queue_full"}) == 0


def test_a_turn(metrics: Metrics, registry: CollectorRegistry) -> None:
    """From evidence to ending."""
    metrics.turn_arrived(Level.PREFIX)
    metrics.decided("continuation")
    metrics.turn_ended(TurnKind.CONTINUATION, Ending.FINISHED, duration_s=3.0, ttft_s=0.2)
    value = registry.get_sample_value
    assert value("mars_identity_total", {"level": "prefix"}) == 1
    assert value("mars_decisions_total", {"decision": "continuation"}) == 1
    assert value("mars_turns_total", {"kind": "continuation", "ending": "finished"}) == 1
    assert value("mars_ttft_seconds_sum", {"kind": "continuation"}) == 0.2
    assert value("mars_turn_duration_seconds_sum", {"kind": "continuation"}) == 3.0


def test_aborted_turns_have_no_duration(metrics: Metrics, registry: CollectorRegistry) -> None:
    """A client that gave up early must not make the server look fast."""
    metrics.turn_ended(TurnKind.FIRST, Ending.ABORTED, duration_s=0.1, ttft_s=None)
    assert registry.get_sample_value("mars_turns_total", {"kind": "first", "ending": "aborted"}) == 1
    assert registry.get_sample_value("mars_turn_duration_seconds_count", {"kind": "first"}) == 0
    assert registry.get_sample_value("mars_ttft_seconds_count", {"kind": "first"}) == 0


def test_holds_go_up_and_down(metrics: Metrics, registry: CollectorRegistry) -> None:
    """By the reason they were held for."""
    metrics.held(Reason.KV_FULL)
    metrics.held(Reason.KV_FULL)
    metrics.released(Reason.KV_FULL, held_s=7.0)
    assert registry.get_sample_value("mars_held_turns", {"reason": "kv_full"}) == 1
    assert registry.get_sample_value("mars_hold_duration_seconds_sum", {"reason": "kv_full"}) == 7.0


def test_unknown_is_not_zero(metrics: Metrics, registry: CollectorRegistry) -> None:
    """Until somebody knows, and again when nobody does."""
    labels = {"backend": "http://h:1"}
    backend = metrics.backend("http://user:hunter2@h:1/v1")

    def pool() -> float:
        value = registry.get_sample_value("mars_kv_tokens", labels | {"what": "pool"})
        assert value is not None
        return value

    assert math.isnan(pool())
    backend.set_kv_tokens(1000, 3600, 4000)
    assert pool() == 4000
    backend.set_kv_tokens(None, None, None)
    assert math.isnan(pool())
    running = registry.get_sample_value("mars_tools_running")
    assert running is not None
    assert math.isnan(running)
    assert registry.get_sample_value("mars_telemetry_fresh", labels) == 0
    backend.set_telemetry(0.5, is_fresh=True)
    assert registry.get_sample_value("mars_telemetry_fresh", labels) == 1
    assert registry.get_sample_value("mars_telemetry_age_seconds", labels) == 0.5


def test_backend_counters(metrics: Metrics, registry: CollectorRegistry) -> None:
    """The same object for the same backend, credentials or not."""
    backend = metrics.backend("http://h:1")
    assert metrics.backend("http://u:p@h:1/x") is backend
    backend.connected(0.002)
    backend.retried()
    backend.aborted()
    backend.failed("backend_timeout")
    labels = {"backend": "http://h:1"}
    assert registry.get_sample_value("mars_backend_connect_seconds_count", labels) == 1
    assert registry.get_sample_value("mars_backend_retries_total", labels) == 1
    assert registry.get_sample_value("mars_backend_aborts_total", labels) == 1
    failed = labels | {"code": "backend_timeout"}
    assert registry.get_sample_value("mars_backend_errors_total", failed) == 1


def test_sessions_by_phase(metrics: Metrics, registry: CollectorRegistry) -> None:
    """A phase that everybody left is 0, not what it was."""
    metrics.set_sessions({"queued": 3, "idle": 1})
    metrics.set_sessions({"idle": 2})
    assert registry.get_sample_value("mars_sessions", {"phase": "queued"}) == 0
    assert registry.get_sample_value("mars_sessions", {"phase": "idle"}) == 2


def test_decisions_are_capped(metrics: Metrics, registry: CollectorRegistry) -> None:
    """A mistake in a policy cannot fill the scraper's memory."""
    for number in range(MAX_DECISIONS + 5):
        metrics.decided(f"word{number}")
    assert registry.get_sample_value("mars_decisions_total", {"decision": "other"}) == 5
    assert registry.get_sample_value("mars_decisions_total", {"decision": f"word{MAX_DECISIONS}"}) is None


def test_event_log_counts(metrics: Metrics, registry: CollectorRegistry) -> None:
    """Read when scraped."""

    class Log:
        lines_written = 7
        lines_dropped = 2

    metrics.watch_event_log(Log())
    assert registry.get_sample_value("mars_event_log_lines_total") == 7
    assert registry.get_sample_value("mars_event_log_dropped_total") == 2


def test_rendering(metrics: Metrics) -> None:
    """Either text format, with its own content type; every name has the prefix and a base unit."""
    metrics.set_fallback_cap(True)
    metrics.loop_lagged(0.003)
    content_type, body = metrics.render()
    assert content_type.startswith("text/plain; version=")
    families = list(text_string_to_metric_families(body.decode()))
    names = {family.name for family in families if not family.name.startswith("process_")}
    assert all(re.fullmatch(r"mars_[a-z_]+", name) for name in names)
    assert not any(name.endswith(("_ms", "_mb", "_s")) for name in names)
    assert metrics.render("application/openmetrics-text")[0].startswith("application/openmetrics-text")


def test_no_label_is_chosen_by_clients(metrics: Metrics) -> None:
    """The whole list of labels, so that a new one is a decision."""
    metrics.backend("http://h:1").failed("backend_timeout")
    metrics.decided("admitted")
    metrics.set_sessions({"idle": 1})
    families = text_string_to_metric_families(metrics.render()[1].decode())
    labels = {label for family in families for sample in family.samples for label in sample.labels}
    assert labels == {
        "backend", "by", "code", "decision", "ending", "how", "kind", "le", "level", "op", "outcome", "phase",
        "reason", "resource", "source", "state", "status", "version", "what",
    }  # fmt: skip

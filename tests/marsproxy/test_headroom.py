"""Readings of a backend's metrics page; unknown is None, and nothing ends the reading."""

import httpx
import pytest

from marsproxy.backend_address import BackendAddress
from marsproxy.core.events import BackendObserved, BackendUnreachable
from marsproxy.headroom import MetricsPage, read_metrics

PAGE = """# TYPE vllm:cache_config_info gauge
vllm:cache_config_info{block_size="16",num_gpu_blocks="1000"} 1.0
# TYPE vllm:kv_cache_usage_perc gauge
vllm:kv_cache_usage_perc{engine="0"} 0.25
vllm:num_requests_running{engine="0"} 3.0
vllm:num_requests_waiting{engine="0"} 2.0
vllm:num_preemptions_total{engine="0"} 7.0
vllm:prefix_cache_queries_total{engine="0"} 1000.0
vllm:prefix_cache_queries_created{engine="0"} 1.7e9
vllm:prefix_cache_hits_total{engine="0"} 900.0
vllm:external_prefix_cache_hits_total{engine="0"} 1.0
vllm:e2e_request_latency_seconds_bucket{le="0.3"} not even a number
"""


def test_a_page_of_vllm() -> None:
    """Only what is wanted is looked at."""
    assert read_metrics("gpu", PAGE) == BackendObserved("gpu", 16_000, 0.25, 3, 2, 7, 1000, 900)


def test_counters_may_lack_their_ending() -> None:
    """As some collectors pass them on."""
    assert read_metrics("gpu", PAGE.replace("_total", "")) == read_metrics("gpu", PAGE)


def test_engines_behind_one_server_are_added_up() -> None:
    """Their use is averaged."""
    other = PAGE.replace('engine="0"', 'engine="1"').replace("0.25", "0.75")
    observed = read_metrics("gpu", PAGE + other.replace('block_size="16"', 'engine="1",block_size="16"'))
    assert observed == BackendObserved("gpu", 32_000, 0.5, 6, 4, 14, 2000, 1800)


@pytest.mark.parametrize("page", ["", "<html>hello</html>", "python_gc_objects_total 3\n"])
def test_a_page_without_the_names_is_a_reading_without_numbers(page: str) -> None:
    """Not an idle backend."""
    assert read_metrics("gpu", page) == BackendObserved("gpu")


@pytest.mark.parametrize("blocks", ["None", "", "-1", "0", "1e3"])
def test_a_pool_of_unknown_size(blocks: str) -> None:
    """vLLM says None until it has profiled."""
    assert read_metrics("gpu", PAGE.replace('"1000"', f'"{blocks}"')).kv_tokens_total is None


def test_a_configured_pool_goes_before_what_is_read() -> None:
    """And stands where nothing is."""
    assert read_metrics("gpu", PAGE, kv_tokens=5).kv_tokens_total == 5


def page_of(answers: list[httpx.Response | Exception]) -> MetricsPage:
    def answer(request: httpx.Request) -> httpx.Response:
        assert request.url.path == "/metrics"
        following = answers.pop(0)
        if isinstance(following, Exception):
            raise following
        return following

    client = httpx.AsyncClient(transport=httpx.MockTransport(answer))
    return MetricsPage("gpu", client, BackendAddress.of("http://gpu/"), kv_tokens=9)


UNREADABLE = [
    httpx.Response(500),
    httpx.ConnectError("refused"),
    httpx.ReadTimeout("slow"),
    httpx.Response(200, text="vllm:num_requests_running{"),
    httpx.Response(200, text="vllm:num_requests_running NaN\n"),
    httpx.Response(200, text="vllm:num_requests_running +Inf\n"),
    httpx.Response(200, text="vllm:num_requests_running many\n"),
]


@pytest.mark.parametrize("answer", UNREADABLE, ids=str)
async def test_what_cannot_be_read_is_said(answer: httpx.Response | Exception) -> None:
    """It never raises."""
    assert await page_of([answer]).read() == BackendUnreachable("gpu")


async def test_a_server_without_metrics_is_alive() -> None:
    """It only says nothing."""
    assert await page_of([httpx.Response(404)]).read() == BackendObserved("gpu", kv_tokens_total=9)

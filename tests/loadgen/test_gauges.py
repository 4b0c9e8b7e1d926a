"""Metrics pages become gauge samples; what is missing stays unknown."""

import itertools

from loadgen.client import open_http_client
from loadgen.gauges import GaugeSampler, Reading, parse_metrics
from loadgen.records import GaugeSample
from tests.loadgen.upstream import FakeGateway, FakeModel

PAGE = """# TYPE vllm:num_requests_running gauge
vllm:num_requests_running{model="a } b"} 3
vllm:num_requests_running{model="c"} 2.0 1700000000000
vllm:kv_cache_usage_perc 0.5
vllm:num_requests_waiting{engine="0"} NaN
vllm:num_requests_running_something 100
mars_tools_running 4
mars_gateway_execs_running 6
mars_held_turns
"""


def test_label_sets_are_added_up_and_nonsense_is_unknown() -> None:
    reading = Reading(parse_metrics(PAGE))
    assert reading.total("vllm:num_requests_running") == 5
    assert reading.mean("vllm:kv_cache_usage_perc") == 0.5
    assert reading.total("vllm:num_requests_waiting") is None
    assert reading.total("mars_held_turns") is None
    assert reading.total("mars_gateway_execs_running", "mars_tools_running") == 6
    assert reading.total("no_such", "mars_tools_running") == 4


async def test_servers_are_read_together_and_a_dead_one_is_left_out(model: FakeModel) -> None:
    samples: list[GaugeSample] = []
    async with open_http_client() as http:
        clock = itertools.count().__next__
        sampler = GaugeSampler(http, ["http://127.0.0.1:1", model.url, model.url], clock, samples.append)
        await sampler.sample()
        await sampler.sample()
    assert [sample.running for sample in samples] == [4, 4]
    assert model.count("GET", "/metrics") == 2
    assert sampler.preemptions == 0


async def test_no_metrics_at_all_are_no_sample(gateway: FakeGateway) -> None:
    samples: list[GaugeSample] = []
    async with open_http_client() as http:
        sampler = GaugeSampler(http, [gateway.url], itertools.count().__next__, samples.append)
        await sampler.sample()
    assert samples == []
    assert sampler.preemptions is None

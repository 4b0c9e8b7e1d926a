"""Tool calls through the gateway: run once, waited for, labelled, cleaned up."""

import resource
import subprocess
import time

import pytest

from loadgen.busy import busy_argv
from loadgen.client import open_http_client
from loadgen.gateway_tools import GatewayTools, gateway_name
from loadgen.tools import ToolContext, ToolError, ToolOutcome
from loadgen.workload import ToolCall
from tests.loadgen.upstream import FakeGateway

pytestmark = pytest.mark.slow

CALL = ToolCall("bash", 0.5, cores=0.25)
CONTEXT = ToolContext("s1", 1, mars_session="m-1", tool_call_id="call-1")


async def run(gateway: FakeGateway, call: ToolCall = CALL) -> ToolOutcome:
    async with open_http_client() as http:
        tools = GatewayTools(http, gateway.url, run_id="r1")
        await tools.open("s1")
        try:
            return await tools.run(call, CONTEXT)
        finally:
            await tools.close("s1")


async def test_a_call_runs_in_a_session_that_is_deleted_at_its_end(gateway: FakeGateway) -> None:
    assert await run(gateway) == ToolOutcome(queue_s=0.5, run_s=1.5)
    path = "/v1/sessions/lg-r1-s1"
    assert gateway.seen == [("PUT", path), ("POST", f"{path}/execs"), ("DELETE", path)]
    (asked,) = gateway.execs
    assert asked["labels"] == {"llm_session": "m-1", "tool_call_id": "call-1"}
    assert asked["argv"] == busy_argv(CALL)
    assert asked["cpu"] == 0.25


async def test_a_slow_call_is_waited_for(gateway: FakeGateway) -> None:
    gateway.is_slow = True
    assert await run(gateway) == ToolOutcome(queue_s=0.5, run_s=1.5)
    assert gateway.count("GET", "/v1/execs/e1") == 1


async def test_a_full_queue_is_tried_again_under_the_same_key(gateway: FakeGateway) -> None:
    gateway.refusals = [429, 429, 503]
    await run(gateway)
    assert len(gateway.keys) == 4
    assert len(set(gateway.keys)) == 1
    assert len(gateway.execs) == 1


async def test_a_refusal_that_waiting_does_not_cure_is_an_error(gateway: FakeGateway) -> None:
    gateway.refusals = [400]
    with pytest.raises(ToolError, match="HTTP 400"):
        await run(gateway)


async def test_a_command_of_ours_must_not_fail_but_a_traced_one_may(gateway: FakeGateway) -> None:
    gateway.exit_code = 2
    with pytest.raises(ToolError, match="exit code 2"):
        await run(gateway)
    await run(gateway, ToolCall("bash", 0.5, command="grep x y"))
    assert gateway.execs[1]["command"] == "grep x y"


async def test_an_unreachable_gateway_does_not_fail_the_clean_up() -> None:
    async with open_http_client() as http:
        await GatewayTools(http, "http://127.0.0.1:1", run_id="r").close("s1")


def test_session_names_fit_the_gateway_and_stay_apart() -> None:
    names = [gateway_name("r", name) for name in ("a/b", "a-b", "a b", "x" * 300, "x" * 299, "ä")]
    assert len(set(names)) == len(names)
    assert all(len(name) <= 128 and name.replace("-", "").isascii() for name in names)


def test_an_idle_call_is_a_sleep() -> None:
    assert busy_argv(ToolCall("bash", 1.5, cores=0)) == ["sleep", "1.500"]


@pytest.mark.parametrize("cores", [0.2, 1.0, 2.0])
def test_a_busy_call_spends_its_cpu_seconds(cores: float) -> None:
    start = time.perf_counter()
    before = children_cpu_s()
    subprocess.run(busy_argv(ToolCall("bash", 0.4, cores=cores, memory_mb=5)), check=True, timeout=60)
    # Never less than asked for; more by start-up and by the last slice of work.
    spent_s = children_cpu_s() - before
    assert 0.4 * cores * 0.95 <= spent_s <= 0.4 * cores + 0.3
    assert time.perf_counter() - start >= 0.4


def children_cpu_s() -> float:
    usage = resource.getrusage(resource.RUSAGE_CHILDREN)
    return usage.ru_utime + usage.ru_stime

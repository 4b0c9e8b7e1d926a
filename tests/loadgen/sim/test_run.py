"""From settings and a workload to records and a summary."""

from pathlib import Path
from typing import Any

import msgspec
import pytest

from loadgen.arrivals import ClosedLoop, OpenLoop
from loadgen.errors import LoadgenError
from loadgen.sim.forecasts import ScaledForecast, TrueForecast, WithoutHistory
from loadgen.sim.run import Simulated, check, make_forecast, open_step_time, simulate
from loadgen.sim.settings import SimulationSettings, Sizes
from loadgen.sim.tool_hosts import ToolHostShape
from loadgen.source import Workload
from loadgen.workload import Turn
from marsproxy.core.policies import POLICIES
from marsproxy.core.settings import AdmissionSettings, PolicySettings, SessionSettings
from tests.loadgen.sim.playing import session, tool

SECONDS = """
[seconds]
description = "every step takes a second, whatever is in it"
source = "made up"
peak_flops = 1e40
memory_bytes_per_s = 1e40
memory_bytes = 1e12
memory_utilization = 0.9
reserved_bytes = 0
compute_efficiency = 1.0
memory_efficiency = 1.0
step_overhead_s = 1.0
"""

TWO = Workload(
    "two",
    [
        session("a", Turn(100, 3, tool(2.0)), Turn(20, 2), at_s=4.0),
        session("b", Turn(100, 1), at_s=0.0),
    ],
)

MANY = Workload(
    "many", [session(f"s{i}", *(Turn(500, 4, tool(1.0, memory_mb=100)) for _ in range(3))) for i in range(8)]
)

PROMISED = {
    "policy", "workload", "seed", "hardware", "sessions", "completed", "failed", "turns", "makespan_s",
    "jct_s", "ttft_s", "ttft_new_s", "ttft_continuation_s", "held_s", "throughput_turns_per_s",
    "throughput_tokens_per_s", "goodput_alpha3", "prefix_hit_ratio", "continuation_hit_ratio",
    "preemptions", "tool_queue_s", "commit",
}  # fmt: skip
"""What others may rely on in ``summary.json``."""


@pytest.fixture
def seconds(tmp_path: Path) -> str:
    path = tmp_path / "seconds.toml"
    path.write_text(SECONDS)
    return str(path)


def run(workload: Workload, policy: str = "fcfs", **fields: Any) -> Simulated:
    fields = {"load": ClosedLoop(2), "kv_tokens": 16_000} | fields
    return simulate(SimulationSettings(policy, **fields), workload)


def test_the_figures_of_a_run(seconds: str) -> None:
    settings = {"hardware": seconds, "tools": ToolHostShape(1.0), "seed": 5}
    done = run(TWO, **settings)
    # Closed loop of two: both begin at 0. a: 3 steps, 2 s of tool, 2 steps. b: 1 step.
    summary = done.summary
    assert [(record.session, record.jct_s, record.ideal_s) for record in done.sessions] == [
        ("a", 7.0, 7.0),
        ("b", 1.0, 1.0),
    ]
    assert (summary["sessions"], summary["completed"], summary["failed"], summary["turns"]) == (2, 2, 0, 3)
    assert (summary["makespan_s"], summary["jct_s"]["mean"], summary["jct_s"]["max"]) == (7.0, 4.0, 7.0)
    assert summary["throughput_turns_per_s"] == 3 / 7
    assert summary["throughput_tokens_per_s"] == 6 / 7
    assert (summary["ttft_new_s"]["mean"], summary["ttft_continuation_s"]["mean"]) == (1.0, 1.0)
    # 96 of the 123 tokens of a's second prompt, of 323 in all.
    assert summary["continuation_hit_ratio"] == 96 / 123
    assert summary["prefix_hit_ratio"] == 96 / 323
    assert (summary["goodput_alpha3"], summary["preemptions"], summary["held_s"]["max"]) == (1.0, 0, 0.0)
    assert summary["tool_queue_s"]["max"] == 0.0
    assert (summary["policy"], summary["workload"], summary["seed"]) == ("fcfs", "two", 5)
    assert (summary["driver"], summary["concurrency"], summary["rate"]) == ("simulated", 2, None)


@pytest.mark.parametrize("policy", sorted(POLICIES))
def test_every_promised_figure_is_there(policy: str) -> None:
    summary = run(MANY, policy, load=OpenLoop(2.0), tools=ToolHostShape(2.0, 150.0), backends=2).summary
    assert PROMISED - summary.keys() == set()
    unknown = {name for name in PROMISED - {"commit"} if summary[name] is None}
    assert unknown == set()
    for name in ("jct_s", "ttft_s", "ttft_new_s", "ttft_continuation_s", "held_s", "tool_queue_s"):
        figures = summary[name]
        assert figures["p50"] <= figures["p95"] <= figures["p99"] <= figures["max"], name
    assert summary["tool_memory_peak_mb"] == 100.0


def test_failed_sessions_are_in_order_and_cost_goodput() -> None:
    tight = PolicySettings(AdmissionSettings(), SessionSettings(max_sessions=1))
    done = run(MANY, "mars", load=ClosedLoop(2), policy_settings=tight)
    assert [record.session for record in done.sessions] == [f"s{i}" for i in range(8)]
    assert [record.error for record in done.sessions].count("table_full") == done.summary["failed"] == 7
    assert done.summary["goodput_alpha3"] == 1 / 8


def test_ideals_go_by_the_size_of_a_step(seconds: str) -> None:
    long = Workload("long", [session("a", Turn(9_000, 1))])
    assert [
        run(long, hardware=seconds, max_batched_tokens=n).sessions[0].ideal_s for n in (8_192, 1_000)
    ] == [2.0, 9.0]


def test_the_same_seed_gives_the_same_records() -> None:
    def lines(seed: int) -> bytes:
        done = run(MANY, "mars", load=OpenLoop(1.0), seed=seed)
        return msgspec.json.encode([done.turns, done.sessions])

    assert lines(3) == lines(3)
    assert lines(3) != lines(4)


@pytest.mark.parametrize(
    ("fields", "words"),
    [
        ({"policy": "fastest"}, "--policy: 'fastest' is not known"),
        ({"hardware": "abacus"}, "unknown hardware profile 'abacus'; known: .*h100"),
        ({"model": "none"}, "unknown model profile 'none'"),
        (
            {"kv_tokens": 1_500},
            "session s0 grows to 1512 tokens and never fits a KV cache of 1500",
        ),
        ({"policy": "fcfs", "sizes": Sizes.TRUE}, "--sizes and --size-factor are for mars; fcfs predicts"),
        ({"policy": "continuum", "size_factor": 2.0}, "continuum predicts in its own way"),
    ],
)
def test_what_cannot_be_simulated_is_refused_before_it_begins(fields: dict[str, Any], words: str) -> None:
    fields = {"policy": "mars", "load": ClosedLoop(1), "kv_tokens": 16_000} | fields
    for ask in (check, simulate):
        with pytest.raises(LoadgenError, match=words):
            ask(SimulationSettings(**fields), MANY)


def test_a_cache_ends_with_a_whole_block() -> None:
    """31 tokens are one block, and 17 do not fit it."""
    odd = Workload("odd", [session("a", Turn(16, 1))])
    with pytest.raises(LoadgenError, match="grows to 17 tokens"):
        run(odd, kv_tokens=31)
    assert run(odd, kv_tokens=32).summary["completed"] == 1


def test_a_model_that_leaves_no_memory_is_refused(tmp_path: Path) -> None:
    small = tmp_path / "small.toml"
    small.write_text(SECONDS.replace("memory_bytes = 1e12", "memory_bytes = 1e9"))
    with pytest.raises(LoadgenError, match="leaves no memory for a KV cache"):
        run(MANY, hardware=str(small), kv_tokens=None)


@pytest.mark.parametrize(
    ("fields", "kind"),
    [
        ({"sizes": Sizes.TRUE}, TrueForecast),
        ({"sizes": Sizes.NO_HISTORY}, WithoutHistory),
        ({"size_factor": 0.5}, ScaledForecast),
        ({"sizes": Sizes.TRUE, "size_factor": 2.0}, ScaledForecast),
    ],
)
def test_other_forecasts_run_too(fields: dict[str, Any], kind: type) -> None:
    settings = SimulationSettings("mars", ClosedLoop(4), kv_tokens=4_000, **fields)
    assert type(make_forecast(settings, MANY.sessions, open_step_time(settings))) is kind
    assert simulate(settings, MANY).summary["completed"] == 8

"""What a simulated run is made of, and which values are refused."""

from math import inf, nan
from typing import Any

import pytest

from loadgen.arrivals import ClosedLoop
from loadgen.errors import LoadgenError
from loadgen.sim.settings import ENDLESS_S, SimulationSettings


def test_clients_are_patient_by_default() -> None:
    settings = SimulationSettings("mars", ClosedLoop(1))
    assert settings.policy_settings.admission.max_hold_s == ENDLESS_S
    assert (settings.host_kv_tokens, settings.tools, settings.takes_hints) == (0, None, True)


def test_backends_are_numbered() -> None:
    assert SimulationSettings("fcfs", ClosedLoop(1), backends=3).backend_names == [
        "engine-0",
        "engine-1",
        "engine-2",
    ]


def test_the_patch_orders_for_the_policy_that_it_is_written_for() -> None:
    def is_patched(policy: str, *, takes_hints: bool = True) -> bool:
        return SimulationSettings(policy, ClosedLoop(1), takes_hints=takes_hints).is_patched

    assert [is_patched(name) for name in ("mars", "mars_retention")] == [True, True]
    assert [is_patched(name) for name in ("fcfs", "mars_admission", "continuum")] == [False, False, False]
    assert not is_patched("mars", takes_hints=False)


def test_an_unknown_policy_names_the_known_ones() -> None:
    with pytest.raises(LoadgenError, match=r"--policy: 'fastest' is not known; allowed: .*mars"):
        _ = SimulationSettings("fastest", ClosedLoop(1)).kind


@pytest.mark.parametrize(
    ("wrong", "words"),
    [
        ({"backends": 0}, "--backends is 0; allowed: 1 or more"),
        ({"kv_tokens": 15}, "--kv-tokens is 15; allowed: 16 or more"),
        ({"host_kv_tokens": -1}, "--host-kv-tokens is -1; allowed: 0 or more"),
        ({"max_batched_tokens": 0}, "--max-num-batched-tokens is 0"),
        ({"max_running": 0}, "--max-num-seqs is 0"),
        ({"telemetry_interval_s": 0.0}, "interval must be above 0"),
        ({"telemetry_delay_s": -0.1}, "delay must be at least 0"),
        ({"telemetry_delay_s": nan}, "delay must be at least 0"),
        ({"size_factor": 0.0}, "size factor above 0"),
        ({"size_factor": inf}, "size factor above 0"),
    ],
)
def test_impossible_values_are_refused_by_name(wrong: dict[str, Any], words: str) -> None:
    with pytest.raises(LoadgenError, match=words):
        SimulationSettings("mars", ClosedLoop(1), **wrong)

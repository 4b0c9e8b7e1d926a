"""The roofline: its two sides, its profiles, and the orders of magnitude they have to give."""

import ast
import sys
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path

import pytest

import backend_patch.step_time
from backend_patch.step_time import HardwareProfile, ModelProfile, StepTime, hardware_names, model_names


def step_time(hardware: str = "h100", model: str = "qwen3-30b-a3b") -> StepTime:
    return StepTime(HardwareProfile.load(hardware), ModelProfile.load(model))


def test_an_empty_step_takes_no_time() -> None:
    assert step_time().seconds([]) == 0.0


@pytest.mark.parametrize("hardware", ["h100", "cpu"])
@pytest.mark.parametrize("contexts", [[0], [1000, 3, 70_000], [5_000] * 40])
def test_a_decode_step_costs_the_same_by_its_sums(hardware: str, contexts: list[int]) -> None:
    time = step_time(hardware)
    whole = time.seconds([(context, 1) for context in contexts])
    assert time.decode_seconds(len(contexts), sum(contexts)) == pytest.approx(whole)


def test_a_copy_from_the_host_takes_bytes_over_bandwidth() -> None:
    assert step_time().host_copy_seconds(20_000) == pytest.approx(20_000 * 98_304 / 25e9)
    assert step_time().host_copy_seconds(20_000, 50e9) == step_time().host_copy_seconds(10_000)


def test_the_formula_with_round_numbers() -> None:
    hardware = HardwareProfile("h", "", "", 1000.0, 100.0, 1e6, 1.0, 0.0, 0.5, 0.5, 0.25)
    model = ModelProfile("m", "m", "", 10.0, 200.0, 400.0, 4, 2, 1, 2, 1, 3, 2, 1000)
    # Arithmetic: 2 * 10 * 2 + 4 * 1 * 2 * 3 * 2 * (5 + 1) = 328 over 500 per second.
    # Traffic: 200 + 400 * (1 - 0.5**2) + (5 + 2) * 12 bytes of KV = 584 over 50 per second.
    assert model.kv_bytes_per_token == 12
    assert StepTime(hardware, model).seconds([(5, 2)]) == pytest.approx(584 / 50 + 0.25)
    slow = replace(hardware, peak_flops=10.0)
    assert StepTime(slow, model).seconds([(5, 2)]) == pytest.approx(328 / 5 + 0.25)


def test_decoding_is_bound_by_memory_and_prefill_by_arithmetic() -> None:
    h100, h200 = step_time("h100"), step_time("h200")  # same arithmetic, more bandwidth
    assert h200.seconds([(5000, 1)] * 8) < h100.seconds([(5000, 1)] * 8)
    assert h200.seconds([(0, 8192)]) == h100.seconds([(0, 8192)])


def test_a_batch_shares_the_weights() -> None:
    single = step_time().seconds([(1000, 1)])
    assert single < step_time().seconds([(1000, 1)] * 16) < 16 * single


def test_a_long_context_costs_more_per_token() -> None:
    model = step_time()
    assert model.seconds([(100_000, 8192)]) > 2 * model.seconds([(0, 8192)])
    assert model.seconds([(100_000, 1)]) > model.seconds([(100, 1)])


def test_the_h100_is_where_public_reports_put_it() -> None:
    h100 = step_time()
    prefill_s = sum(h100.seconds([(context, 8192)]) for context in range(0, 24_576, 8192))
    assert 15_000 < 24_576 / prefill_s < 30_000
    assert 0.005 < h100.seconds([(5000, 1)]) < 0.010
    assert h100.model.kv_bytes_per_token == 98_304


def test_the_pool_is_what_the_weights_leave() -> None:
    assert 100_000 < step_time("h100").default_kv_tokens < 200_000
    assert step_time("h200").default_kv_tokens > 4 * step_time("h100").default_kv_tokens
    assert step_time("cpu").default_kv_tokens < 0, "30 B parameters do not fit in 32 GB"
    assert step_time("cpu", "tiny").default_kv_tokens > 100_000


def test_every_profile_loads_and_names_its_source() -> None:
    assert hardware_names() == ["a100", "cpu", "h100", "h200"]
    assert model_names() == ["llama-3.1-8b", "qwen3-30b-a3b", "tiny"]
    for hardware in map(HardwareProfile.load, hardware_names()):
        assert hardware.source
        for model in map(ModelProfile.load, model_names()):
            assert model.source
            assert StepTime(hardware, model).seconds([(10, 1)]) > hardware.step_overhead_s


def test_an_unknown_name_gets_the_known_ones() -> None:
    with pytest.raises(ValueError, match="unknown hardware profile 'b200'; known: a100, cpu, h100, h200"):
        HardwareProfile.load("b200")
    with pytest.raises(ValueError, match="unknown model profile 'gpt'; known: llama"):
        ModelProfile.load("gpt")


def test_it_imports_the_standard_library_only() -> None:
    tree = ast.parse(Path(backend_patch.step_time.__file__).read_text("utf-8"))
    imported = {alias.name for node in ast.walk(tree) if isinstance(node, ast.Import) for alias in node.names}
    imported |= {node.module or "" for node in ast.walk(tree) if isinstance(node, ast.ImportFrom)}
    assert {name.split(".")[0] for name in imported} <= sys.stdlib_module_names


TABLE = """
["my gpu"]
description = "d"
source = "s"
peak_flops = 1e12
memory_bytes_per_s = 1e11
memory_bytes = 80_000_000_000
memory_utilization = 0.9
reserved_bytes = 0
compute_efficiency = 0.4
memory_efficiency = 0.7
step_overhead_s = 0.001

[tools.bash]
count = 3
"""


def test_a_profile_can_come_from_a_file(tmp_path: Path) -> None:
    """Named after its table; tables about other things are passed over."""
    file = tmp_path / "mine.toml"
    file.write_text(TABLE)
    assert HardwareProfile.load(str(file)).name == "my gpu"
    assert HardwareProfile.load(str(file)).compute_efficiency == 0.4


@pytest.mark.parametrize(
    ("change", "said"),
    [
        (lambda text: text.replace("peak_flops", "peak_flop"), "0 tables with peak_flops"),
        (lambda text: text + "[other]\npeak_flops = 1", "2 tables with peak_flops"),
        (lambda text: text.replace("step_overhead_s", "overhead"), "overhead, step_overhead_s"),
        (lambda text: text.replace("0.7", '"much"'), "memory_efficiency must be a number"),
        (lambda text: text.replace('"d"', "3"), "description must be a string"),
        (lambda text: text + "[", "not a TOML file"),
    ],
)
def test_a_file_that_is_no_profile_is_explained(
    tmp_path: Path, change: Callable[[str], str], said: str
) -> None:
    file = tmp_path / "mine.toml"
    file.write_text(change(TABLE))
    with pytest.raises(ValueError, match=said):
        HardwareProfile.load(str(file))
    with pytest.raises(ValueError, match=r"absent\.toml: cannot be read"):
        HardwareProfile.load(str(tmp_path / "absent.toml"))

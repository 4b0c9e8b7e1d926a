"""Known parameters come back; what the turns do not say stays as it was."""

from dataclasses import replace

import pytest

from backend_patch.step_time import HardwareProfile, ModelProfile, StepTime
from loadgen.calibration.fit import Fit, StepSample, fit_hardware, fit_steps
from loadgen.calibration.observations import TurnSample
from loadgen.errors import LoadgenError

BASE = HardwareProfile.load("h100")
TRUE = replace(BASE, compute_efficiency=0.5, memory_efficiency=0.6, step_overhead_s=0.006)
STEP_TOKENS = 8192


def turn_of(
    prompt: int, cached: int, output: int, model: str = "qwen3-30b-a3b", overhead_s: float = 0.0
) -> TurnSample:
    """As an engine with the true parameters takes it."""
    step = StepTime(TRUE, ModelProfile.load(model)).seconds
    begins = range(cached, prompt, STEP_TOKENS)
    prefill_s = sum(step([(begin, min(STEP_TOKENS, prompt - begin))]) for begin in begins)
    decode_s = sum(step([(prompt + done, 1)]) for done in range(output - 1))
    return TurnSample(prompt, cached, output, prefill_s + overhead_s, decode_s, None)


def fitted(turns: list[TurnSample], model: str = "qwen3-30b-a3b") -> Fit:
    return fit_hardware(turns, BASE, ModelProfile.load(model), STEP_TOKENS)


MIXED = [turn_of(500 * n, 300 * n, 10 * n + 9) for n in range(1, 41)]


@pytest.mark.parametrize("model", ["qwen3-30b-a3b", "llama-3.1-8b"])
def test_exact_times_give_the_exact_parameters(model: str) -> None:
    turns = [turn_of(700 * n, 200 * n, 10 * n + 9, model, overhead_s=0.01) for n in range(1, 41)]
    fit = fitted(turns, model)
    assert fit.hardware.compute_efficiency == pytest.approx(0.5, rel=0.01)
    assert fit.hardware.memory_efficiency == pytest.approx(0.6, rel=0.01)
    assert fit.hardware.step_overhead_s == pytest.approx(0.006, rel=0.01)
    assert fit.request_overhead_s == pytest.approx(0.01, rel=0.05)
    assert (fit.used, fit.kept) == (fit.phases, ())
    assert fit.p95_error < 0.01


def test_disturbed_turns_are_left_out() -> None:
    """One in ten took three times as long."""
    turns = [
        replace(turn, prefill_s=(turn.prefill_s or 0) * (3 if n % 10 == 0 else 1))
        for n, turn in enumerate(MIXED)
    ]
    fit = fitted(turns)
    assert fit.used == fit.phases - 4
    assert fit.hardware.compute_efficiency == pytest.approx(0.5, rel=0.02)


def test_answers_that_were_not_streamed_do_as_well() -> None:
    """Only their whole time is known."""
    turns = [
        replace(turn, prefill_s=None, decode_s=None, total_s=(turn.prefill_s or 0) + (turn.decode_s or 0))
        for turn in MIXED
    ]
    fit = fitted(turns)
    assert fit.hardware.memory_efficiency == pytest.approx(0.6, rel=0.05)


def test_a_side_that_nothing_is_bound_by_is_kept() -> None:
    """Short prompts of a mixture of experts say nothing about arithmetic."""
    fit = fitted([turn_of(20 + n, 0, 50 + n) for n in range(30)])
    assert fit.kept == ("compute_efficiency",)
    assert fit.hardware.compute_efficiency == BASE.compute_efficiency


STEPS = [((0.0, 512 * n),) for n in range(1, 13)] + [((2_000.0 * n, 1),) * n for n in range(1, 13)]


@pytest.mark.parametrize("model", ["qwen3-30b-a3b", "llama-3.1-8b"])
def test_steps_timed_one_by_one_give_the_parameters(model: str) -> None:
    profile = ModelProfile.load(model)
    seconds = StepTime(TRUE, profile).seconds
    fit = fit_steps([StepSample(items, seconds(items)) for items in STEPS], BASE, profile)
    assert fit.hardware.compute_efficiency == pytest.approx(0.5, rel=0.01)
    assert fit.hardware.memory_efficiency == pytest.approx(0.6, rel=0.01)
    assert fit.hardware.step_overhead_s == pytest.approx(0.006, rel=0.01)
    assert fit.request_overhead_s == 0


def test_a_handful_of_steps_is_no_fit() -> None:
    with pytest.raises(LoadgenError, match="3 steps are too few; needed: 6"):
        fit_steps([StepSample(STEPS[0], 0.01)] * 3, BASE, ModelProfile.load("tiny"))

"""The parameters of the roofline that explain the times of turns best.

A turn's prefill is a few steps over chunks of its prompt, its decoding one step per token; with the
efficiencies' inverses x (arithmetic) and y (memory), the overhead of a step o and the time that a request
takes before its first step t0, a phase is predicted to last

    sum over steps (max(C x, M y) + o)  +  t0 in a phase that begins with the request

where C and M are the seconds of the step at an efficiency of one. Which side of each maximum holds follows
from the last estimate, so that each round is a linear least-squares problem in four numbers that must not
be negative; errors are relative, for a decode is as telling as a prefill a hundred times shorter. Phases
that something else disturbed are left out once and for all: those far from the rest in a first fit.
"""

from collections.abc import Iterable, Sequence
from dataclasses import dataclass, replace
from itertools import combinations
from math import inf

import numpy as np
import numpy.typing as npt

from backend_patch.step_time import HardwareProfile, ModelProfile, StepTime
from loadgen.calibration.observations import TurnSample
from loadgen.errors import LoadgenError

Floats = npt.NDArray[np.float64]

MIN_PREFILLS = 10
MIN_DECODES = 10
"""Phases of each kind below which a fit of four numbers says more about the noise than about the engine."""
MIN_STEPS = 6
"""Two for each number: steps that are timed alone have hardly any noise."""
MIN_DECODE_TOKENS = 8
"""A shorter decode is mostly the jitter of its first and last token."""
SIDES = ("compute_efficiency", "memory_efficiency")
"""What the first two of the four numbers are the inverses of."""
ROUNDS = 50
"""Rarely more than five are needed; a bound, for two sides may take turns for ever."""
OUTLIER_DEVIATIONS = 4.0
"""In robust standard deviations (1.4826 times the median absolute error)."""
LEAST_OUTLIER = 0.05
"""Relative error that is never an outlier, however well the others fit."""


@dataclass(frozen=True, slots=True)
class Steps:
    """``count`` steps alike: seconds of arithmetic and of memory traffic of one, at an efficiency of 1."""

    compute_s: float
    memory_s: float
    count: int


@dataclass(frozen=True, slots=True)
class Phase:
    steps: tuple[Steps, ...]
    begins_request: bool
    seconds: float


@dataclass(frozen=True, slots=True)
class StepSample:
    """One step that was timed."""

    items: tuple[tuple[float, int], ...]
    """``(context_before, new_tokens)`` of each request in it."""
    seconds: float


@dataclass(frozen=True, slots=True)
class Fit:
    hardware: HardwareProfile
    """The base with what was fitted in its place."""
    request_overhead_s: float
    """From forwarding to the first step, and from the first token to the proxy: not the accelerator's."""
    phases: int
    used: int
    """The others were too far from the rest."""
    median_error: float
    """Relative, of the phases that were used."""
    p95_error: float
    kept: tuple[str, ...]
    """Fields of the base that no phase says anything about."""

    @property
    def error_text(self) -> str:
        return f"relative error median {self.median_error:.1%}, 95th percentile {self.p95_error:.1%}"


def fit_hardware(
    turns: Iterable[TurnSample], base: HardwareProfile, model: ModelProfile, step_tokens: int
) -> Fit:
    """``step_tokens``: the engine's ``--max-num-batched-tokens``.

    Raises:
        LoadgenError: too few turns for an answer.
    """
    return fit_phases(phases_of(turns, base, model, step_tokens), base)


def fit_steps(samples: Iterable[StepSample], base: HardwareProfile, model: ModelProfile) -> Fit:
    """From steps that were timed one by one, as on an accelerator without an engine around it.

    Raises:
        LoadgenError: too few steps for an answer.
    """
    sides = _Sides(base, model, step_tokens=1)
    phases = [Phase((sides.steps(sample.items),), False, sample.seconds) for sample in samples]
    if len(phases) < MIN_STEPS:
        raise LoadgenError(f"{len(phases)} steps are too few; needed: {MIN_STEPS}")
    return fit_phases(phases, base)


def fit_phases(phases: Sequence[Phase], base: HardwareProfile) -> Fit:
    start = np.array([1 / base.compute_efficiency, 1 / base.memory_efficiency, base.step_overhead_s, 0.0])
    first = _solve(phases, start)
    used = _without_outliers(phases, first)
    solution = _solve(used, first)
    design = _design(used, solution)
    errors = np.abs(design @ solution / _seconds(used) - 1)
    says = [bool(column.any()) for column in design.T]
    return Fit(
        hardware=replace(
            base,
            compute_efficiency=float(1 / solution[0]) if says[0] else base.compute_efficiency,
            memory_efficiency=float(1 / solution[1]) if says[1] else base.memory_efficiency,
            step_overhead_s=float(solution[2]),
        ),
        request_overhead_s=float(solution[3]),
        phases=len(phases),
        used=len(used),
        median_error=float(np.median(errors)),
        p95_error=float(np.quantile(errors, 0.95)),
        kept=tuple(name for name, is_told in zip(SIDES, says, strict=False) if not is_told),
    )


def phases_of(
    turns: Iterable[TurnSample], base: HardwareProfile, model: ModelProfile, step_tokens: int
) -> list[Phase]:
    """Raises LoadgenError where they are too few."""
    sides = _Sides(base, model, step_tokens)
    prefills: list[Phase] = []
    decodes: list[Phase] = []
    wholes: list[Phase] = []
    for turn in turns:
        if turn.prefill_s is not None:
            prefills.append(Phase(sides.prefill(turn), True, turn.prefill_s))
        if turn.decode_s is not None and turn.completion_tokens > MIN_DECODE_TOKENS:
            decodes.append(Phase(sides.decode(turn), False, turn.decode_s))
        if turn.total_s is not None:
            wholes.append(Phase(sides.prefill(turn) + sides.decode(turn), True, turn.total_s))
    if len(prefills) + len(wholes) < MIN_PREFILLS or len(decodes) + len(wholes) < MIN_DECODES:
        raise LoadgenError(
            f"too few turns had their backend to themselves: {len(prefills)} prefills and {len(decodes)} "
            f"decodes of more than {MIN_DECODE_TOKENS} tokens of streamed answers, {len(wholes)} answers "
            f"that were not streamed; needed: {MIN_PREFILLS} prefills and {MIN_DECODES} decodes. Record a "
            "run with one session at a time (loadgen run --concurrency 1 --sessions 10), against an engine "
            "that tells usage and cached tokens (vLLM: --enable-prompt-tokens-details)"
        )
    return prefills + decodes + wholes


class _Sides:
    """Each side of the roofline alone, by letting the other be infinitely fast."""

    def __init__(self, base: HardwareProfile, model: ModelProfile, step_tokens: int) -> None:
        ideal = replace(base, compute_efficiency=1.0, memory_efficiency=1.0, step_overhead_s=0.0)
        self._compute = StepTime(replace(ideal, memory_bytes_per_s=inf), model)
        self._memory = StepTime(replace(ideal, peak_flops=inf), model)
        self._step_tokens = step_tokens

    def prefill(self, turn: TurnSample) -> tuple[Steps, ...]:
        ends = range(turn.cached_tokens, turn.prompt_tokens, self._step_tokens)
        return tuple(
            self._steps(begin, min(self._step_tokens, turn.prompt_tokens - begin), 1) for begin in ends
        )

    def decode(self, turn: TurnSample) -> tuple[Steps, ...]:
        """The first token comes with the prefill; the others' contexts are taken at their mid-point."""
        count = turn.completion_tokens - 1
        return (self._steps(turn.prompt_tokens + (count - 1) / 2, 1, count),) if count > 0 else ()

    def _steps(self, context: float, new: int, count: int) -> Steps:
        return self.steps([(context, new)], count)

    def steps(self, items: Sequence[tuple[float, int]], count: int = 1) -> Steps:
        return Steps(self._compute.seconds(items), self._memory.seconds(items), count)


def _seconds(phases: Sequence[Phase]) -> Floats:
    return np.array([phase.seconds for phase in phases])


def _design(phases: Sequence[Phase], solution: Floats) -> Floats:
    """What each of the four numbers is multiplied with in each phase."""
    x, y = solution[:2]
    rows = np.zeros((len(phases), 4))
    for row, phase in zip(rows, phases, strict=True):
        for steps in phase.steps:
            if steps.compute_s * x > steps.memory_s * y:
                row[0] += steps.count * steps.compute_s
            else:
                row[1] += steps.count * steps.memory_s
            row[2] += steps.count
        row[3] = phase.begins_request
    return rows


def _solve(phases: Sequence[Phase], start: Floats) -> Floats:
    """Rounds of "which side holds" and least squares, until the sides stay as they are."""
    seconds = _seconds(phases)
    solution, sides = start, None
    for _ in range(ROUNDS):
        design = _design(phases, solution)
        now_sides = design > 0
        if sides is not None and (now_sides == sides).all():
            break
        sides = now_sides
        solved = _least_squares(design / seconds[:, None])
        # A side that no phase is on keeps its last value, or every phase would look as if it were there.
        solution = np.where(design.any(axis=0), solved, solution)
        solution[:2] = np.where(solution[:2] > 0, solution[:2], start[:2])
    return solution


def _least_squares(relative: Floats) -> Floats:
    """Non-negative numbers whose weighted sums come closest to one. Four are few enough to try each
    choice of those that are zero."""
    ones = np.ones(len(relative))
    best, best_error = np.zeros(4), inf
    for count in range(1, 5):
        for chosen in map(list, combinations(range(4), count)):
            values, *_ = np.linalg.lstsq(relative[:, chosen], ones, rcond=None)
            if (values < 0).any():
                continue
            error = float(np.square(relative[:, chosen] @ values - ones).sum())
            if error < best_error:
                best, best_error = np.zeros(4), error
                best[chosen] = values
    return best


def _without_outliers(phases: Sequence[Phase], solution: Floats) -> list[Phase]:
    errors = np.abs(_design(phases, solution) @ solution / _seconds(phases) - 1)
    limit = max(LEAST_OUTLIER, OUTLIER_DEVIATIONS * 1.4826 * float(np.median(errors)))
    return [phase for phase, error in zip(phases, errors, strict=True) if error <= limit]

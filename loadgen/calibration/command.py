"""``loadgen calibrate``: a live event log in, TOML out.

Owns the form of the output. The first table is a hardware profile, so the file can be given wherever the
name of one is taken; the others are what was seen beside the engine, in the form that workload profiles
have.
"""

import json
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import asdict
from pathlib import Path
from typing import Annotated

import numpy as np
from cyclopts import Parameter
from cyclopts.validators import Number
from rich.console import Console

from backend_patch.step_time import HardwareProfile, ModelProfile
from loadgen.calibration.fit import Fit, fit_hardware
from loadgen.calibration.observations import Observations, observe
from loadgen.errors import LoadgenError
from loadgen.event_log import read_event_log

PERCENTS = (0, 10, 25, 50, 75, 90, 95, 99, 100)
LARGE_ERROR = 0.15
"""Median relative error from which a fit is warned of: turns with 3 % of noise leave 2 %."""
MIN_SAMPLES = 5
"""Of a kind of tool or gap, for a table of quantiles."""


def calibrate(
    log: Path,
    /,
    *,
    hardware: str = "h100",
    model: str = "qwen3-30b-a3b",
    max_num_batched_tokens: Annotated[int, Parameter(validator=Number(gte=1))] = 8192,
    name: str | None = None,
) -> int:
    """Fit engine and tool parameters from a proxy's event log, and print them as TOML.

    Parameters
    ----------
    log
        File or directory written by marsproxy serve --event-log.
    hardware
        Accelerator that served: the profile whose peak rates and memory are kept. A name, or a .toml file.
    model
        Model that it served.
    max_num_batched_tokens
        Tokens per step of the engine.
    name
        Of the printed profile. Default: that of the hardware with -calibrated.
    """
    try:
        base, model_profile = HardwareProfile.load(hardware), ModelProfile.load(model)
    except ValueError as exc:
        raise LoadgenError(str(exc)) from exc
    found = observe(read_event_log(log))
    try:
        fit = fit_hardware(found.turns, base, model_profile, max_num_batched_tokens)
    except LoadgenError as exc:
        raise LoadgenError(
            f"{log}: {exc}. The log has {found.finished} finished turns, "
            f"{found.without_usage} of them without usage"
        ) from exc
    for line in document(found, fit, model_profile, name or f"{base.name}-calibrated"):
        print(line)  # noqa: T201
    console = Console(stderr=True, highlight=False, markup=False, soft_wrap=True)
    for line in remarks(found, fit):
        console.print(f"loadgen calibrate: {line}")
    return 0


def document(found: Observations, fit: Fit, model: ModelProfile, name: str) -> Iterator[str]:
    yield from hardware_table(fit, model, name)
    yield ""
    yield "[engine]"
    yield "# Seconds of a request that are not the accelerator's: the way there and back, parsing, queueing."
    yield f"request_overhead_s = {_number(fit.request_overhead_s)}"
    if found.kv_tokens is not None:
        yield f"kv_tokens = {found.kv_tokens}  # as the backend said; loadgen engine --kv-tokens"
    if found.bytes_per_token:
        yield f"bytes_per_prompt_token = {_number(float(np.median(found.bytes_per_token)))}  # median"
    yield from quantile_tables("tools", "duration_s", found.tool_s)
    yield from quantile_tables("gaps", "gap_s", found.gap_s)


def hardware_table(fit: Fit, model: ModelProfile, name: str) -> Iterator[str]:
    source = (
        f"loadgen calibrate: {fit.used} prefills and decodes with {model.name}, {fit.error_text}; "
        f"peak rates and memory of {fit.hardware.name}"
    )
    yield f"[{json.dumps(name)}]"
    for key, value in asdict(fit.hardware).items():
        if key == "source":
            yield f"source = {json.dumps(source)}"
        elif key != "name":
            yield f"{key} = {json.dumps(value) if isinstance(value, str) else _number(value)}"


def quantile_tables(section: str, field: str, samples: Mapping[str, Sequence[float]]) -> Iterator[str]:
    """Most frequent first; those with too few samples are left out."""
    for name, values in sorted(samples.items(), key=lambda item: -len(item[1])):
        if len(values) < MIN_SAMPLES:
            continue
        rows = ", ".join(
            f"[{percent}, {_number(value)}]"
            for percent, value in zip(PERCENTS, np.percentile(values, PERCENTS).tolist(), strict=True)
        )
        yield ""
        yield f"[{section}.{json.dumps(name)}]"
        yield f"count = {len(values)}"
        yield f"{field} = {{quantiles = [{rows}]}}"


def remarks(found: Observations, fit: Fit) -> Iterator[str]:
    """What should be known before the figures are believed."""
    yield f"{fit.used} of {fit.phases} phases of {len(found.turns)} turns used, {fit.error_text}"
    if fit.median_error > LARGE_ERROR:
        yield "these turns do not take the time of any such engine: is something else using the backend?"
    for key in fit.kept:
        yield f"{key} is that of the base profile: no turn is bound by that side"
    for key in ("compute_efficiency", "memory_efficiency"):
        if getattr(fit.hardware, key) > 1:
            yield f"{key} is above 1, more than the hardware can: is --hardware or --model another one?"


def _number(value: float) -> str:
    return f"{value:.6g}" if abs(value) < 1e6 else json.dumps(value)

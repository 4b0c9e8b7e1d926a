"""One simulated run: from settings and a workload to records and a summary like a live run's."""

import time
from collections.abc import Callable
from dataclasses import dataclass, replace
from typing import Any

from backend_patch.step_time import HardwareProfile, ModelProfile, StepTime
from loadgen.errors import LoadgenError
from loadgen.provenance import commit, describe
from loadgen.records import SessionRecord, TurnRecord
from loadgen.sim.forecasts import ScaledForecast, TrueForecast, WithoutHistory
from loadgen.sim.ideal import ideal_session_s, ideal_work_s
from loadgen.sim.settings import BLOCK_TOKENS, SimulationSettings, Sizes
from loadgen.sim.simulation import OnEvent, Simulation
from loadgen.source import Workload
from loadgen.summary import summarise
from loadgen.workload import Session
from marsproxy.core.forecast import Forecast
from marsproxy.core.learned import LearnedForecast
from marsproxy.core.policy import Policy
from marsproxy.core.scheduling import SchedulingPolicy


@dataclass(frozen=True, slots=True)
class Simulated:
    turns: list[TurnRecord]
    sessions: list[SessionRecord]
    summary: dict[str, Any]


def simulate(
    settings: SimulationSettings,
    workload: Workload,
    *,
    on_session: Callable[[SessionRecord], None] = lambda _record: None,
    on_event: OnEvent | None = None,
) -> Simulated:
    """Play the workload in virtual time. Raises ``LoadgenError`` where it can never fit the server."""
    step_time = open_step_time(settings)
    kv_tokens = check_fits(settings, workload, step_time)
    policy = make_policy(settings, workload.sessions, step_time)
    simulation = Simulation(
        settings, workload.sessions, policy, step_time, kv_tokens, on_session=on_session, on_event=on_event
    )
    began_s = time.process_time()
    virtual_s = simulation.run()
    cpu_s = time.process_time() - began_s
    sessions = in_order(simulation.records, workload.sessions)
    for record, session in zip(sessions, workload.sessions, strict=True):
        record.ideal_s = ideal_session_s(session, step_time, settings.max_batched_tokens)
    meta = meta_of(settings, workload, simulation, kv_tokens) | {
        "client": {"cpu_s": cpu_s, "virtual_s": virtual_s}
    }
    return Simulated(simulation.turns, sessions, summarise(simulation.turns, sessions, meta))


def check(settings: SimulationSettings, workload: Workload) -> None:
    """Raises what ``simulate`` would, before any file is made for it."""
    step_time = open_step_time(settings)
    check_fits(settings, workload, step_time)
    make_policy(settings, workload.sessions, step_time)


def open_step_time(settings: SimulationSettings) -> StepTime:
    try:
        return StepTime(HardwareProfile.load(settings.hardware), ModelProfile.load(settings.model))
    except ValueError as exc:
        raise LoadgenError(str(exc)) from exc


def in_order(records: list[SessionRecord], sessions: list[Session]) -> list[SessionRecord]:
    by_id = {record.session: record for record in records}
    return [by_id[session.id] for session in sessions]


def check_fits(settings: SimulationSettings, workload: Workload, step_time: StepTime) -> int:
    """The KV cache of each backend in tokens; every session fits it."""
    kv_tokens = step_time.default_kv_tokens if settings.kv_tokens is None else settings.kv_tokens
    if kv_tokens < BLOCK_TOKENS:
        raise LoadgenError(f"--model {settings.model} leaves no memory for a KV cache on {settings.hardware}")
    room = kv_tokens // BLOCK_TOKENS * BLOCK_TOKENS
    for session in workload.sessions:
        tokens = session.system_tokens + sum(turn.new_tokens + turn.output_tokens for turn in session.turns)
        if tokens > room:
            raise LoadgenError(
                f"session {session.id} grows to {tokens} tokens and never fits a KV cache of {kv_tokens}; "
                "--max-context-tokens ends sessions before, --kv-tokens sets the cache"
            )
    return kv_tokens


def make_policy(
    settings: SimulationSettings, sessions: list[Session], step_time: StepTime
) -> SchedulingPolicy:
    kind = settings.kind
    if settings.sizes is Sizes.LEARNED and settings.size_factor == 1:
        return kind.make(settings.policy_settings, settings.backend_names)
    if kind.parts is None:
        raise LoadgenError(
            f"--sizes and --size-factor are for mars; {settings.policy} predicts in its own way"
        )
    return Policy(
        replace(settings.policy_settings, parts=kind.parts),
        settings.backend_names,
        make_forecast(settings, sessions, step_time),
    )


def make_forecast(settings: SimulationSettings, sessions: list[Session], step_time: StepTime) -> Forecast:
    admission = settings.policy_settings.admission
    forecast: Forecast
    match settings.sizes:
        case Sizes.LEARNED:
            forecast = LearnedForecast(admission)
        case Sizes.TRUE:
            by_id = {session.id: session for session in sessions}
            forecast = TrueForecast(by_id, lambda session: ideal_work_s(session, step_time))
        case Sizes.NO_HISTORY:
            forecast = WithoutHistory(LearnedForecast(admission))
    return ScaledForecast(forecast, settings.size_factor) if settings.size_factor != 1 else forecast


def meta_of(
    settings: SimulationSettings, workload: Workload, simulation: Simulation, kv_tokens: int
) -> dict[str, Any]:
    servers = simulation.servers.values()
    hosts = simulation.hosts
    return {
        "driver": "simulated",
        "label": settings.label or settings.policy,
        "policy": settings.policy,
        "engine": next(server.about for server in servers),
        "hardware": settings.hardware,
        "model": settings.model,
        "kv_tokens": kv_tokens,
        "backends": settings.backends,
        "workload": workload.name,
        "workload_assumed_tool_times": workload.assumed_tool_times,
        "seed": settings.seed,
        "flags": {
            "scheduling_policy": settings.kind.engine_order,
            "max_num_batched_tokens": settings.max_batched_tokens,
            "max_num_seqs": settings.max_running,
            "takes_hints": settings.takes_hints,
        },
        "sessions_planned": len(workload.sessions),
        "preemptions": sum(server.preemptions for server in servers),
        "engine_steps": sum(server.steps for server in servers),
        "tool_memory_peak_mb": hosts.memory_peak_mb,
        "commit": commit(),
        **describe(settings.load),
    }

"""``loadgen simulate``: one run in virtual time, with the files and the report of a live one."""

from contextlib import ExitStack
from dataclasses import dataclass, replace
from datetime import UTC, datetime
from pathlib import Path
from typing import Annotated

from cyclopts import Parameter
from rich.console import Console

from loadgen.arrivals import choose_load
from loadgen.errors import LoadgenError
from loadgen.options import LoadOptions, WorkloadOptions
from loadgen.progress import RunProgress
from loadgen.recorder import REPORT_FILE, Recorder
from loadgen.report import write_report
from loadgen.sim.event_log import EventLogFile, header_of
from loadgen.sim.run import Simulated, check, simulate
from loadgen.sim.settings import PATIENT, EngineKind, SimulationSettings, Sizes, TokenEstimate
from loadgen.sim.tool_hosts import Discipline, ToolHostShape
from marsproxy.core.settings import ConfigError, PolicySettings

EXIT_FAILED_SESSIONS = 1
STATIC_CAP = "static_cap"
MB_PER_GB = 1024


@Parameter(name="*")
@dataclass(frozen=True, slots=True)
class ServerOptions:
    hardware: str = "h100"
    """Accelerator of each backend."""
    model: str = "qwen3-30b-a3b"
    """Model that it serves."""
    kv_tokens: int | None = None
    """KV cache of each backend in tokens. Default: what fits beside the weights."""
    host_kv_tokens: int = 0
    """Host memory of each backend for KV that a policy swaps out, in tokens. 0: none, as stock vLLM."""
    backends: int = 1
    """How many of them."""
    engine: EngineKind = EngineKind.MODEL
    """The model of vLLM, or the scheduler of the vLLM that is installed: slower, and exact."""
    hints: bool = True
    """Whether the engine keeps and evicts as the policy advises, or is stock vLLM."""
    max_num_batched_tokens: int = 8192
    """Tokens per engine step."""
    max_num_seqs: int = 256
    """Requests per engine step."""


@Parameter(name="*")
@dataclass(frozen=True, slots=True)
class ToolHostOptions:
    tool_cores: float | None = None
    """Cores of each tool host. Default: every agent runs its tools on a machine of its own."""
    tool_memory_gb: float | None = None
    """Memory of each tool host. Default: more than anything needs."""
    tool_hosts: int = 1
    """How many hosts."""
    tool_discipline: Discipline = Discipline.SLOTS
    """Slots and one queue, as the gateway has them, or everything at once on shared cores."""

    @property
    def shape(self) -> ToolHostShape | None:
        if self.tool_cores is None:
            return None
        memory_mb = None if self.tool_memory_gb is None else self.tool_memory_gb * MB_PER_GB
        return ToolHostShape(self.tool_cores, memory_mb, self.tool_discipline, self.tool_hosts)


@Parameter(name="*")
@dataclass(frozen=True, slots=True)
class KnowledgeOptions:
    telemetry_delay_s: float = 0.0
    """Age of every reading when the policy gets it."""
    token_estimate: TokenEstimate = TokenEstimate.EXACT
    """What the policy is told of a prompt before its usage is known."""
    sizes: Sizes = Sizes.LEARNED
    """What it knows of sessions that have not ended."""
    size_factor: float = 1.0
    """All its predictions times this."""


def simulate_command(
    *,
    policy: Annotated[str, Parameter(name=["--policy", "-p"])] = "mars",
    static_cap: int | None = None,
    workload: WorkloadOptions,
    load: LoadOptions | None = None,
    server: ServerOptions | None = None,
    tools: ToolHostOptions | None = None,
    knowledge: KnowledgeOptions | None = None,
    out: Annotated[Path | None, Parameter(name=["--out", "-o"])] = None,
    event_log: Path | None = None,
) -> int:
    """Play a workload in virtual time: the policy of the proxy, a model of the engine and of the tool hosts.

    Parameters
    ----------
    policy
        mars, or one of those that it is compared with.
    static_cap
        Sessions at once on each backend, for the policy static_cap. Default: 8.
    out
        Directory for turns.jsonl, sessions.jsonl, summary.json and report.html.
        Default: a new one below out/.
    event_log
        Directory for what the policy was told and its commands, as the proxy writes them.
    """
    opened = workload.open(workload.seed)
    load = load or LoadOptions()
    server, tools, knowledge = (
        server or ServerOptions(),
        tools or ToolHostOptions(),
        knowledge or KnowledgeOptions(),
    )
    settings = SimulationSettings(
        policy=policy,
        load=choose_load(opened.sessions, load.rate, load.concurrency, load.arrivals),
        seed=workload.seed,
        hardware=server.hardware,
        model=server.model,
        kv_tokens=server.kv_tokens,
        host_kv_tokens=server.host_kv_tokens,
        backends=server.backends,
        tools=tools.shape,
        max_batched_tokens=server.max_num_batched_tokens,
        max_running=server.max_num_seqs,
        policy_settings=policy_settings(policy, static_cap),
        takes_hints=server.hints,
        engine=server.engine,
        telemetry_delay_s=knowledge.telemetry_delay_s,
        token_estimate=knowledge.token_estimate,
        sizes=knowledge.sizes,
        size_factor=knowledge.size_factor,
    )
    check(settings, opened)
    out_dir = out or Path("out") / datetime.now(UTC).strftime("%Y%m%dT%H%M%S")
    with ExitStack() as stack:
        on_event = None
        if event_log is not None:
            on_event = stack.enter_context(EventLogFile(event_log, header_of(settings))).record
        recorder = stack.enter_context(Recorder(out_dir))
        progress = RunProgress(policy, len(opened.sessions), Console(stderr=True), counts_turns=False)
        progress.start()
        stack.callback(progress.stop)
        simulated = simulate(settings, opened, on_session=progress.session_ended, on_event=on_event)
        write(simulated, recorder)
    write_report([out_dir], out_dir / REPORT_FILE)
    print_result(simulated, out_dir)
    return EXIT_FAILED_SESSIONS if simulated.summary["failed"] else 0


def policy_settings(policy: str, static_cap: int | None) -> PolicySettings:
    """Raises ``LoadgenError`` for a cap that nobody heeds, or that is none."""
    if static_cap is None:
        return PATIENT
    if policy != STATIC_CAP:
        raise LoadgenError(f"--static-cap is for --policy {STATIC_CAP}, not for {policy}")
    try:
        admission = replace(PATIENT.admission, static_cap_sessions=static_cap)
    except ConfigError as exc:
        raise LoadgenError(f"--static-cap: {exc}") from exc
    return replace(PATIENT, admission=admission)


def write(simulated: Simulated, recorder: Recorder) -> None:
    for turn in simulated.turns:
        recorder.add_turn(turn)
    for session in simulated.sessions:
        recorder.add_session(session)
    recorder.write_summary(simulated.summary)


def print_result(simulated: Simulated, out_dir: Path) -> None:
    summary = simulated.summary
    console = Console(highlight=False, soft_wrap=True, markup=False)
    jct = summary["jct_s"]
    console.print(
        f"{summary['completed']} of {summary['sessions']} sessions in {summary['makespan_s']:.0f} s of "
        f"virtual time ({summary['client']['cpu_s']:.1f} s of CPU), {summary['failed']} failed"
    )
    if jct["mean"] is not None:
        console.print(
            f"mean JCT {jct['mean']:.1f} s, p99 {jct['p99']:.1f} s, "
            f"hit ratio {summary['prefix_hit_ratio']:.3f}, {summary['preemptions']} preemptions, "
            f"goodput {summary['goodput_alpha3']:.2f}"
        )
    console.print(f"records and report: {out_dir}")

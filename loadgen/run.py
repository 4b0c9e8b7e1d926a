"""A live run: one workload against one target, from the probe to the summary."""

import time
import uuid
from contextlib import AsyncExitStack
from dataclasses import dataclass, field
from datetime import UTC, datetime
from enum import Enum
from pathlib import Path
from typing import Any

from rich.console import Console

from loadgen.agent import Agent, Stage
from loadgen.arrivals import Load
from loadgen.client import READ_TIMEOUT_S, ChatClient, open_http_client
from loadgen.errors import LoadgenError
from loadgen.gateway_tools import GatewayTools
from loadgen.gauges import GaugeSampler
from loadgen.history import RequestOptions
from loadgen.interrupt import until_done_or_stopped
from loadgen.lag import LagMeter
from loadgen.limits import check_open_files, raise_open_file_limit
from loadgen.pauses import no_long_collections
from loadgen.progress import RunProgress
from loadgen.provenance import commit, describe
from loadgen.recorder import REPORT_FILE, Recorder
from loadgen.records import TurnRecord
from loadgen.report import write_report
from loadgen.schedule import play_all
from loadgen.scripted import AnswerMode
from loadgen.source import Workload
from loadgen.summary import summarise
from loadgen.target import Target, base_url, probe
from loadgen.text import TextSource
from loadgen.tools import SleepTools, Tools
from loadgen.workload import Session


class ToolMode(Enum):
    SLEEP = "sleep"
    GATEWAY = "gateway"


@dataclass(frozen=True, slots=True)
class RunSettings:
    target: str
    load: Load
    seed: int
    out_dir: Path
    tools: ToolMode = ToolMode.SLEEP
    gateway: str | None = None
    gateway_token: str | None = field(default=None, repr=False)
    engine: str | None = None
    """Also read this server's metrics, where the target is a proxy that does not repeat them."""
    model: str | None = None
    api_key: str | None = field(default=None, repr=False)
    stream: bool = True
    exact_output: bool = True
    answers: AnswerMode = AnswerMode.MODEL
    session_header: str | None = None
    read_timeout_s: float = READ_TIMEOUT_S
    label: str | None = None
    """Name of the target in tables and reports."""

    def check(self) -> None:
        base_url(self.target)
        if (self.tools is ToolMode.GATEWAY) != (self.gateway is not None):
            raise LoadgenError("--tools gateway and --gateway URL go together")
        if not self.read_timeout_s > 0:
            raise LoadgenError(f"--timeout-s is {self.read_timeout_s}; allowed: more than 0")


@dataclass(frozen=True, slots=True)
class RunResult:
    out_dir: Path
    summary: dict[str, Any]
    is_interrupted: bool

    @property
    def has_failures(self) -> bool:
        return bool(self.summary["failed"])


async def run_load(settings: RunSettings, workload: Workload, console: Console) -> RunResult:
    """Runs to the end or to Ctrl-C, and leaves the records, the summary and the report in ``out_dir``."""
    settings.check()
    connections = 2 if settings.tools is ToolMode.GATEWAY else 1
    check_open_files(settings.load, len(workload.sessions), raise_open_file_limit(), connections)
    async with AsyncExitStack() as stack:
        http = await stack.enter_async_context(
            open_http_client(settings.api_key, read_timeout_s=settings.read_timeout_s)
        )
        text = TextSource(settings.seed)
        target = await probe(http, base_url(settings.target), settings.model, text.sample())
        text.chars_per_token = target.chars_per_token
        warn_of_long_sessions(workload, target, console)
        tools = await open_tools(settings, stack)
        recorder = stack.enter_context(Recorder(settings.out_dir))
        progress = RunProgress(settings.label or target.url, len(workload.sessions), console)
        run = LiveRun(settings, workload, target, recorder, progress)
        sampler = GaugeSampler(http, metric_urls(settings), run.clock, recorder.add_gauges)
        client = ChatClient(http, f"{target.url}/v1/chat/completions", clock=run.clock, seed=settings.seed)
        await run.play(client, tools, text, sampler)
    return finish(run, sampler)


def context_tokens(session: Session) -> int:
    """At its end."""
    return session.system_tokens + sum(turn.new_tokens + turn.output_tokens for turn in session.turns)


def warn_of_long_sessions(workload: Workload, target: Target, console: Console) -> None:
    if target.max_model_len is None:
        return
    too_long = sum(context_tokens(session) > target.max_model_len for session in workload.sessions)
    if too_long:
        console.print(
            f"{too_long} of {len(workload.sessions)} sessions do not fit the model's {target.max_model_len} "
            f"tokens and will fail; --max-context-tokens ends them before",
            style="yellow",
            highlight=False,
        )


async def open_tools(settings: RunSettings, stack: AsyncExitStack) -> Tools:
    if settings.gateway is None:
        return SleepTools()
    # Connections of its own: a slow gateway must not share timeouts or keys with the model server.
    http = await stack.enter_async_context(open_http_client(settings.gateway_token))
    return GatewayTools(http, base_url(settings.gateway), run_id=uuid.uuid4().hex[:8])


def metric_urls(settings: RunSettings) -> list[str]:
    urls = (settings.target, settings.engine, settings.gateway)
    return [base_url(url) for url in urls if url is not None]


class LiveRun:
    """The state of one run: its clock, its cost, whether it was stopped."""

    def __init__(
        self,
        settings: RunSettings,
        workload: Workload,
        target: Target,
        recorder: Recorder,
        progress: RunProgress,
    ) -> None:
        self.settings, self.workload, self.target, self.recorder = settings, workload, target, recorder
        self.lag = LagMeter()
        self.is_interrupted = False
        self.cpu_s = 0.0
        self.started_at = datetime.now(UTC)
        self._progress = progress
        self._start = time.perf_counter()

    def clock(self) -> float:
        return time.perf_counter() - self._start

    async def play(self, client: ChatClient, tools: Tools, text: TextSource, sampler: GaugeSampler) -> None:
        stage = Stage(
            client=client,
            tools=tools,
            text=text,
            options=RequestOptions(
                model=self.target.model,
                stream=self.settings.stream,
                exact_output=self.settings.exact_output,
                answers=self.settings.answers,
            ),
            lag=self.lag,
            clock=self.clock,
            on_turn=self._turn_ended,
            session_header=self.settings.session_header,
            overhead_tokens=self.target.overhead_tokens,
            turn_overhead_tokens=self.target.turn_overhead_tokens,
            tool_overhead_tokens=self.target.tool_overhead_tokens,
        )
        self._progress.start()
        self._start, cpu_before = time.perf_counter(), time.process_time()
        try:
            with no_long_collections():
                self.is_interrupted = await until_done_or_stopped(
                    self._play_sessions(stage), [self.lag.watch(self.clock), sampler.watch()]
                )
        finally:
            self.cpu_s = time.process_time() - cpu_before
            self._progress.stop()

    async def _play_sessions(self, stage: Stage) -> None:
        async def play(session: Session, arrival_s: float) -> None:
            agent = Agent(stage, session, arrival_s)
            self._progress.session_began()
            try:
                await agent.play()
            finally:
                self.recorder.add_session(agent.record)
                self._progress.session_ended(agent.record)

        await play_all(self.settings.load, self.workload.sessions, self.settings.seed, play, self.clock)

    def _turn_ended(self, record: TurnRecord) -> None:
        self.recorder.add_turn(record)
        self._progress.turn_ended(record)


def finish(run: LiveRun, sampler: GaugeSampler) -> RunResult:
    summary = summarise(run.recorder.turns, run.recorder.sessions, meta(run, sampler))
    run.recorder.write_summary(summary)
    write_report([run.recorder.out_dir], run.recorder.out_dir / REPORT_FILE)
    return RunResult(run.recorder.out_dir, summary, run.is_interrupted)


def meta(run: LiveRun, sampler: GaugeSampler) -> dict[str, Any]:
    """What the records do not say: the settings, the driver's own cost, the server's preemptions."""
    settings, target = run.settings, run.target
    return {
        "driver": "live",
        "label": settings.label,
        "target": target.url,
        "policy": None,
        "hardware": None,
        "model": target.model,
        "workload": run.workload.name,
        "workload_skipped_lines": run.workload.skipped_lines,
        "workload_stand_in": run.workload.stand_in,
        "workload_assumed_tool_times": run.workload.assumed_tool_times,
        "seed": settings.seed,
        "tools": settings.tools.value,
        "stream": settings.stream,
        "answers": settings.answers.value,
        "chars_per_token": target.chars_per_token,
        "chars_per_token_is_measured": target.is_calibrated,
        "overhead_tokens": target.overhead_tokens,
        "turn_overhead_tokens": target.turn_overhead_tokens,
        "tool_overhead_tokens": target.tool_overhead_tokens,
        "sessions_planned": len(run.workload.sessions),
        "started_at": run.started_at.isoformat(),
        "interrupted": run.is_interrupted,
        "preemptions": sampler.preemptions,
        "commit": commit(),
        "client": client_cost(run),
        **describe(settings.load),
    }


def client_cost(run: LiveRun) -> dict[str, float | int | None]:
    """Whether the driver itself can be trusted: its CPU per turn, and how late its event loop was."""
    turns = len(run.recorder.turns)
    return {
        "cpu_s": run.cpu_s,
        "cpu_ms_per_turn": 1000 * run.cpu_s / turns if turns else None,
        "loop_lag_p50_s": run.lag.quantile_s(0.5),
        "loop_lag_p99_s": run.lag.quantile_s(0.99),
        "loop_lag_max_s": run.lag.largest_s,
    }

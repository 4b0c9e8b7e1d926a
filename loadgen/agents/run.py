"""A run of real agents: starts them as the load says, has them recorded, and says what became of their tasks.

The framework plays (``crew_process``), the relay records, the workspace tells whether the work was done. A
session counts as completed only if the framework says so *and* every step was done once.
"""

import tempfile
import time
from collections.abc import Sequence
from contextlib import AsyncExitStack
from dataclasses import dataclass, field
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

from rich.console import Console

from loadgen.agents.crew.orders import Order
from loadgen.agents.crew_process import Crew, open_crew
from loadgen.agents.relay import Relay
from loadgen.agents.task import Task
from loadgen.agents.workspace import missing, prepare
from loadgen.arrivals import Load
from loadgen.client import open_http_client
from loadgen.gauges import GaugeSampler
from loadgen.interrupt import until_done_or_stopped
from loadgen.lag import LagMeter
from loadgen.progress import RunProgress
from loadgen.provenance import commit, describe
from loadgen.recorder import REPORT_FILE, Recorder
from loadgen.records import SessionRecord, TurnRecord
from loadgen.report import write_report
from loadgen.run import RunResult
from loadgen.schedule import play_all
from loadgen.summary import summarise
from loadgen.target import base_url, choose_model
from loadgen.text import TextSource
from loadgen.workload import Session

NO_KEY = "none"


@dataclass(frozen=True, slots=True)
class AgentSettings:
    framework: str
    python: Path
    target: str
    load: Load
    seed: int
    out_dir: Path
    workload: str
    """Its name, for the summary."""
    processes: int = 1
    shell: Path | None = None
    stream: bool = False
    timeout_s: float = 3600.0
    chars_per_token: float = 4.0
    engine: str | None = None
    gateway: str | None = None
    api_key: str | None = field(default=None, repr=False)
    model: str | None = None
    label: str | None = None


class AgentRun:
    """The state of one run."""

    def __init__(self, settings: AgentSettings, tasks: Sequence[Task], console: Console) -> None:
        self.settings = settings
        self.tasks = {task.id: task for task in tasks}
        self.lag = LagMeter()
        self.is_interrupted = False
        self.versions: set[str] = set()
        self.cpu_s = 0.0
        self.started_at = datetime.now(UTC)
        self._progress = RunProgress(settings.label or settings.target, len(tasks), console)
        self._start = time.perf_counter()
        self._next = 0

    def clock(self) -> float:
        return time.perf_counter() - self._start

    async def play(self) -> RunResult:
        settings = self.settings
        async with AsyncExitStack() as stack:
            http = await stack.enter_async_context(open_http_client(settings.api_key))
            target = base_url(settings.target)
            self._model = (await choose_model(http, target, settings.model)).id
            self.recorder = stack.enter_context(Recorder(settings.out_dir))
            self._folder = Path(stack.enter_context(tempfile.TemporaryDirectory(prefix="loadgen-agents-")))
            relay = Relay(target, self.clock, self._turn_ended, settings.timeout_s)
            self._relay = await stack.enter_async_context(relay)
            crews = [await stack.enter_async_context(self._crew(i)) for i in range(settings.processes)]
            self.versions = {crew.version for crew in crews}
            sampler = GaugeSampler(http, self._metric_urls(), self.clock, self.recorder.add_gauges)
            await self._until_done_or_stopped(crews, sampler)
        return self._finish(sampler)

    def _crew(self, number: int) -> Any:
        home = self._folder / f"home-{number}"
        home.mkdir()
        log = self.settings.out_dir / f"framework-{number}.log"
        return open_crew(self.settings.framework, self.settings.python, home, log)

    def _metric_urls(self) -> list[str]:
        urls = (self.settings.target, self.settings.engine, self.settings.gateway)
        return [base_url(url) for url in urls if url is not None]

    async def _until_done_or_stopped(self, crews: list[Crew], sampler: GaugeSampler) -> None:
        self._progress.start()
        self._start, cpu_before = time.perf_counter(), time.process_time()
        try:
            watchers = [crew.watch() for crew in crews]
            watchers += [self.lag.watch(self.clock), sampler.watch()]
            self.is_interrupted = await until_done_or_stopped(self._play_sessions(crews), watchers)
        finally:
            self.cpu_s = time.process_time() - cpu_before
            self._progress.stop()

    async def _play_sessions(self, crews: list[Crew]) -> None:
        text = TextSource(self.settings.seed, self.settings.chars_per_token)

        async def play(session: Session, arrival_s: float) -> None:
            crew = crews[self._next % len(crews)]
            self._next += 1
            await self._play_one(crew, self.tasks[session.id], arrival_s, text)

        sessions = [task.session for task in self.tasks.values()]
        await play_all(self.settings.load, sessions, self.settings.seed, play, self.clock)

    async def _play_one(self, crew: Crew, task: Task, arrival_s: float, text: TextSource) -> None:
        record = SessionRecord(session=task.id, arrival_s=arrival_s, turns_planned=len(task.session.turns))
        workspace = self._folder / task.id.replace("/", "_")
        prepare(workspace)
        self._progress.session_began()
        base = self._relay.open(record)
        is_over = False
        try:
            error = await crew.play(self._order(task, base, workspace, text))
            record.error = error or missing(workspace, task.steps)
            is_over = True
        finally:
            self._relay.close(task.id)
            if not is_over or record.error is not None:
                record.end_s = None
            self.recorder.add_session(record)
            self._progress.session_ended(record)

    def _order(self, task: Task, base: str, workspace: Path, text: TextSource) -> Order:
        settings = self.settings
        return Order(
            session=task.id,
            task=task.prompt(text),
            workspace=str(workspace),
            base_url=base,
            api_key=settings.api_key or NO_KEY,
            model=self._model,
            # A model that follows the script needs one call a turn; more mean that something went astray.
            max_steps=2 * len(task.session.turns),
            timeout_s=settings.timeout_s,
            stream=settings.stream,
            shell=str(settings.shell) if settings.shell is not None else None,
        )

    def _turn_ended(self, record: TurnRecord) -> None:
        record.loop_lag_s = self.lag.largest_since(record.sent_s, self.clock())
        self.recorder.add_turn(record)
        self._progress.turn_ended(record)

    def _finish(self, sampler: GaugeSampler) -> RunResult:
        recorder = self.recorder
        summary = summarise(recorder.turns, recorder.sessions, self._meta(sampler))
        recorder.write_summary(summary)
        write_report([recorder.out_dir], recorder.out_dir / REPORT_FILE)
        return RunResult(recorder.out_dir, summary, self.is_interrupted)

    def _meta(self, sampler: GaugeSampler) -> dict[str, Any]:
        settings = self.settings
        turns = len(self.recorder.turns)
        return {
            "driver": "agents",
            "framework": settings.framework,
            "framework_version": ", ".join(sorted(self.versions)),
            "label": settings.label,
            "target": base_url(settings.target),
            "policy": None,
            "hardware": None,
            "model": self._model,
            "workload": settings.workload,
            "seed": settings.seed,
            "tools": "local" if settings.shell is None else settings.shell.name,
            "stream": settings.stream,
            "answers": "script",
            "sessions_planned": len(self.tasks),
            "started_at": self.started_at.isoformat(),
            "interrupted": self.is_interrupted,
            "preemptions": sampler.preemptions,
            "commit": commit(),
            "client": {
                "cpu_s": self.cpu_s,
                "cpu_ms_per_turn": 1000 * self.cpu_s / turns if turns else None,
                "loop_lag_p50_s": self.lag.quantile_s(0.5),
                "loop_lag_p99_s": self.lag.quantile_s(0.99),
                "loop_lag_max_s": self.lag.largest_s,
            },
            **describe(settings.load),
        }

"""``loadgen agents``: real agents of a framework, a scripted model, real commands."""

import os
from dataclasses import dataclass
from pathlib import Path
from typing import Annotated

from cyclopts import Parameter
from rich.console import Console

from loadgen.agents.run import AgentRun, AgentSettings
from loadgen.agents.task import Task, dialect_of, tasks_of
from loadgen.arrivals import choose_load
from loadgen.command_run import default_out, exit_code, print_run, run_async
from loadgen.errors import LoadgenError
from loadgen.options import LoadOptions, WorkloadOptions
from loadgen.text import DEFAULT_CHARS_PER_TOKEN


@Parameter(name="*")
@dataclass(frozen=True, slots=True)
class FrameworkOptions:
    framework: str
    """openhands or mini-swe-agent."""
    python: Path | None = None
    """Python of the framework's own virtual environment. Default: .venv-agents/FRAMEWORK/bin/python."""
    processes: int = 1
    """Of the framework; its agents are shared out among them, each a thread."""
    shell: Path | None = None
    """Program that agents run commands with, such as a gateway's shim: the terminal's shell of openhands, the
    docker executable of mini-swe-agent. Default: the framework's own choice, on this machine."""
    stream: bool = False
    """Have the framework ask for streams, where it can."""
    timeout_s: float = 3600.0
    """Of a model call and of a command, in seconds; waiting in a queue counts."""
    chars_per_token: float = DEFAULT_CHARS_PER_TOKEN
    """To make prompts and outputs of as many tokens as the workload has."""
    engine: str | None = None
    """URL of the model server behind a proxy: its metrics are sampled too."""
    gateway: str | None = None
    """URL of the gateway: its metrics are sampled too."""
    model: str | None = None
    """Default: the first that the target lists."""
    api_key: Annotated[str | None, Parameter(env_var="OPENAI_API_KEY", show_default=False)] = None
    """Sent as a bearer token."""

    def check(self) -> None:
        if self.processes < 1:
            raise LoadgenError(f"--processes is {self.processes}; allowed: 1 or more")
        if not self.timeout_s > 0 or not self.chars_per_token > 0:
            raise LoadgenError("--timeout-s and --chars-per-token must be more than 0")
        if self.shell is not None and not os.access(self.shell, os.X_OK):
            raise LoadgenError(f"--shell {str(self.shell)!r} is no program that can be run")

    def python_path(self) -> Path:
        python = self.python or Path(".venv-agents") / self.framework / "bin" / "python"
        if not python.exists():
            raise LoadgenError(
                f"--python {str(python)!r} is not there; give that of an environment with {self.framework}"
            )
        return python.absolute()


def agents_command(
    *,
    target: Annotated[str | None, Parameter(name=["--target", "-t"])] = None,
    framework: FrameworkOptions,
    workload: WorkloadOptions,
    load: LoadOptions | None = None,
    label: str | None = None,
    out: Annotated[Path | None, Parameter(name=["--out", "-o"])] = None,
    write_script: Path | None = None,
    allow_failures: bool = False,
) -> int:
    """Run real agents of a framework against an OpenAI-compatible server.

    Parameters
    ----------
    target
        URL of the server, with or without /v1.
    label
        Name of the target in tables and reports.
    out
        Directory for the records, the summary and the report. Default: a new one below out/.
    write_script
        Only write the model's answers to this file, for --script of the engine, and stop.
    allow_failures
        Exit 0 even if sessions failed.
    """
    framework.check()
    dialect = dialect_of(framework.framework)
    opened = workload.open(workload.seed)
    tasks = tasks_of(opened.sessions, framework.chars_per_token)
    if write_script is not None:
        write_script.write_bytes(b"".join(task.script_line(dialect) for task in tasks))
        return 0
    if target is None:
        raise LoadgenError("--target is needed, or --write-script FILE")
    settings = settings_of(target, out or default_out(), opened.name, framework, workload, load, tasks, label)
    result = run_async(AgentRun(settings, tasks, Console(stderr=True)).play())
    print_run(result)
    return exit_code([result], allow_failures)


def settings_of(
    target: str,
    out: Path,
    name: str,
    framework: FrameworkOptions,
    workload: WorkloadOptions,
    load: LoadOptions | None,
    tasks: list[Task],
    label: str | None,
) -> AgentSettings:
    load = load or LoadOptions()
    sessions = [task.session for task in tasks]
    return AgentSettings(
        framework=framework.framework,
        python=framework.python_path(),
        target=target,
        load=choose_load(sessions, load.rate, load.concurrency, load.arrivals),
        seed=workload.seed,
        out_dir=out,
        workload=name,
        processes=framework.processes,
        shell=framework.shell.absolute() if framework.shell else None,
        stream=framework.stream,
        timeout_s=framework.timeout_s,
        chars_per_token=framework.chars_per_token,
        engine=framework.engine,
        gateway=framework.gateway,
        api_key=framework.api_key,
        model=framework.model,
        label=label,
    )

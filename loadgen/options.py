"""Options of the commands that drive a live target, each with its unit; one place for run and compare."""

from dataclasses import dataclass, field
from pathlib import Path
from typing import Annotated

from cyclopts import Parameter

from loadgen.arrivals import Arrivals, choose_load
from loadgen.client import READ_TIMEOUT_S
from loadgen.modifiers import Modifiers
from loadgen.run import RunSettings, ToolMode
from loadgen.scripted import AnswerMode
from loadgen.source import Workload, open_workload


@Parameter(name="*")
@dataclass(frozen=True, slots=True)
class WorkloadOptions:
    workload: Annotated[str, Parameter(name=["--workload", "-w"])]
    """Profile (autonomous, demo, heavy-tail-tools, interactive, memory-bound, tool-heavy), workload file, or
    mix:NAME=WEIGHT,NAME=WEIGHT."""
    sessions: Annotated[int | None, Parameter(name=["--sessions", "-n"])] = None
    """How many; a file shorter than that starts again. Default: the whole file."""
    seed: int = 0
    """Of sessions, texts and arrivals: the same seed is the same load."""
    max_turns: int | None = None
    """Cut sessions after so many turns."""
    scale_tokens: float = 1.0
    """Factor on all token counts."""
    scale_gaps: float = 1.0
    """Factor on tool times and user pauses."""
    max_context_tokens: int | None = None
    """End a session before the turn that would pass this; leave those out of a file that cannot begin."""
    max_gap_s: float | None = None
    """Longest tool call and user pause, in seconds."""
    select: str | None = None
    """Only the sessions of a file with FIELD=VALUE, such as src=NAME."""
    bootstrap: bool = False
    """Draw the sessions of a file by seed, with replacement, instead of in their order."""
    shared_prompt_tokens: int = 0
    """Let the sessions of a file that says nothing of it have so many first tokens in common."""
    fallback: str | None = None
    """Profile to take where a file does not exist; the summary says so."""
    skip_bad_lines: bool = False
    """Count broken lines of a workload file and go on, instead of stopping at the first."""

    def open(self, seed: int) -> Workload:
        return open_workload(
            self.workload,
            sessions=self.sessions,
            seed=seed,
            modifiers=Modifiers(
                self.max_turns, self.scale_tokens, self.scale_gaps, self.max_context_tokens, self.max_gap_s
            ),
            skip_bad_lines=self.skip_bad_lines,
            select=self.select,
            bootstrap=self.bootstrap,
            shared_prompt_tokens=self.shared_prompt_tokens,
            fallback=self.fallback,
        )


@Parameter(name="*")
@dataclass(frozen=True, slots=True)
class LoadOptions:
    rate: float | None = None
    """Open loop: sessions a second, whatever the server does."""
    arrivals: Arrivals = Arrivals.POISSON
    """How an open loop spaces them."""
    concurrency: int | None = None
    """Closed loop: so many agents, each taking up the next session when it is done with one."""


@Parameter(name="*")
@dataclass(frozen=True, slots=True)
class ClientOptions:
    tools: ToolMode = ToolMode.SLEEP
    """What runs between turns: nothing but time, or real commands through the gateway."""
    gateway: str | None = None
    """URL of the tool-execution gateway."""
    gateway_token: Annotated[str | None, Parameter(env_var="MARS_GATEWAY_TOKEN", show_default=False)] = field(
        default=None, repr=False
    )
    """Sent to the gateway as a bearer token."""
    engine: str | None = None
    """URL of the model server behind a proxy: its metrics are sampled too; compare clears its prefix cache
    before each run."""
    model: str | None = None
    """Default: the first that the target lists."""
    api_key: Annotated[str | None, Parameter(env_var="OPENAI_API_KEY", show_default=False)] = field(
        default=None, repr=False
    )
    """Sent as a bearer token."""
    stream: bool = True
    """Ask for server-sent events, or for one JSON answer."""
    exact_output: bool = True
    """Force the traced answer lengths with vLLM's ignore_eos and min_tokens."""
    answers: AnswerMode = AnswerMode.MODEL
    """What the model says, or (embedded engine only) tool calls where the workload has them."""
    session_header: str | None = None
    """Send each session's id under this header. Default: no id, as most frameworks."""
    timeout_s: float = READ_TIMEOUT_S
    """Longest silence of the target, in seconds, before a turn fails."""


def settings_of(
    target: str, out: Path, workload: Workload, seed: int, load: LoadOptions, client: ClientOptions
) -> RunSettings:
    settings = RunSettings(
        target=target,
        load=choose_load(workload.sessions, load.rate, load.concurrency, load.arrivals),
        seed=seed,
        out_dir=out,
        tools=client.tools,
        gateway=client.gateway,
        gateway_token=client.gateway_token,
        engine=client.engine,
        model=client.model,
        api_key=client.api_key,
        stream=client.stream,
        exact_output=client.exact_output,
        answers=client.answers,
        session_header=client.session_header,
        read_timeout_s=client.timeout_s,
    )
    settings.check()
    return settings

"""What travels over the gateway's REST API, one frozen struct per body.

Owns names, types, bounds and their documentation: the server decodes with these, the OpenAPI document
is derived from them, clients encode and decode with them. It must not know how anything is done.
Times are seconds, memory is MB (10^6 bytes), offsets and sizes are bytes. ``None`` means unknown or
not said; 0 means zero.
"""

from enum import StrEnum
from typing import Annotated, Literal

from msgspec import Meta, Struct

from marsproxy.core.events import ToolHostsObserved, ToolObserved

MAX_WAIT_S = 60.0
"""Longest long poll. Below the idle timeouts that load balancers commonly have."""

EXIT_TIMED_OUT = 124
"""As coreutils' ``timeout`` answers."""
EXIT_CANCELLED = 130
"""As a shell answers for a command ended by Ctrl-C."""
EXIT_SIGNAL_BASE = 128
"""As a shell answers for a command that died of signal n: 128 + n."""
EXIT_NOT_EXECUTABLE = 126
EXIT_NOT_FOUND = 127
"""Both as a shell answers for a command that it could not start."""

Seconds = Annotated[float, Meta(ge=0, le=7 * 86400)]
Bytes = Annotated[int, Meta(ge=0)]
Text = Annotated[str, Meta(min_length=1)]
Words = Annotated[list[str], Meta(min_length=1, max_length=4096)]
Variables = Annotated[dict[str, str], Meta(max_length=256)]
Labels = Annotated[
    dict[str, Annotated[str, Meta(max_length=256)]],
    Meta(
        max_length=16,
        description="Free. `llm_session` and `tool_call_id` are told to the proxy, which joins the tool"
        " call with the turn that asked for it.",
    ),
]


class ExecState(StrEnum):
    """Where a command is. The last five are final."""

    QUEUED = "queued"
    STARTING = "starting"
    RUNNING = "running"
    EXITED = "exited"
    TIMED_OUT = "timed_out"
    CANCELLED = "cancelled"
    LOST = "lost"
    """It was started and nobody can say how it ended. Never run again on its own."""
    REJECTED = "rejected"
    """It was never started; ``reason`` says why."""

    @property
    def is_final(self) -> bool:
        return self not in (ExecState.QUEUED, ExecState.STARTING, ExecState.RUNNING)


class StreamName(StrEnum):
    STDOUT = "stdout"
    STDERR = "stderr"


class SessionRequest(Struct, frozen=True, forbid_unknown_fields=True, omit_defaults=True):
    """Settings of a session; a PUT replaces them, the workspace stays."""

    env: Variables = {}
    cwd: Annotated[
        str | None, Meta(description="Where commands start, relative to the workspace. Default: its root.")
    ] = None
    ttl_s: Annotated[
        Seconds | None, Meta(description="End the session so long after this request, whatever runs.")
    ] = None
    idle_ttl_s: Annotated[
        Seconds | None, Meta(description="End it after so long without a command. Default: server setting.")
    ] = None
    labels: Labels = {}


class SessionStatus(Struct, frozen=True):
    id: str
    workspace: str
    """Absolute path on the host that runs the commands."""
    env_names: list[str]
    cwd: str | None
    labels: dict[str, str]
    execs_active: int
    """Queued, starting and running."""
    expires_in_s: float | None
    """Until ``ttl_s`` ends it; None without one."""
    idle_expires_in_s: float | None
    """Until ``idle_ttl_s`` ends it; None while a command is active."""


class OutputRequest(Struct, frozen=True, forbid_unknown_fields=True, omit_defaults=True):
    max_bytes: Annotated[
        Bytes | None,
        Meta(
            description="Keep so many leading bytes of each stream; the rest is counted and dropped, and"
            " the command goes on. Default: server setting.",
        ),
    ] = None
    merge: Annotated[bool, Meta(description="Write stderr into stdout, in order.")] = False


class ExecRequest(Struct, frozen=True, forbid_unknown_fields=True, omit_defaults=True):
    """One command. Exactly one of ``command`` and ``argv`` is given."""

    command: Annotated[Text | None, Meta(description="Text for `shell`.")] = None
    argv: Annotated[Words | None, Meta(description="Program and arguments, no shell.")] = None
    shell: Literal["bash -c", "bash -lc", "sh -c"] = "bash -c"
    cwd: Annotated[str | None, Meta(description="Relative to the workspace. Default: the session's.")] = None
    env: Variables = {}
    stdin_b64: Annotated[str | None, Meta(description="Standard input, base64. Default: empty.")] = None
    timeout_s: Annotated[
        Seconds | None,
        Meta(description="Counts from the start, never in the queue. Default: server setting."),
    ] = None
    queue_timeout_s: Annotated[
        Seconds | None, Meta(description="Give up, unstarted, after so long. Default: server setting.")
    ] = None
    kill_grace_s: Annotated[
        float, Meta(ge=0, le=60, description="Between SIGTERM and SIGKILL on timeout and cancel.")
    ] = 5.0
    cpu: Annotated[
        float,
        Meta(
            ge=0,
            le=1024,
            description="CPU slots that it takes. Charged at least 0.05: sleepers are bounded too.",
        ),
    ] = 1.0
    output: OutputRequest = OutputRequest()
    labels: Labels = {}

    def __post_init__(self) -> None:
        if (self.command is None) == (self.argv is None):
            raise ValueError("Give exactly one of `command` and `argv`")


class StreamStatus(Struct, frozen=True):
    """Output of one stream so far; ``text`` or ``b64`` hold its beginning once the command is over."""

    total_bytes: int
    """Written by the command."""
    kept_bytes: int
    """Kept for reading at ``/output``."""
    truncated: bool
    """More was written than kept."""
    text: str | None = None
    """None while it runs, or where the bytes are not UTF-8."""
    b64: str | None = None
    """Instead of ``text`` for bytes that are not UTF-8."""
    next_offset: int = 0
    """Where reading on at ``/output`` continues what is here."""


class ExecStatus(Struct, frozen=True):
    id: str
    session: str
    state: ExecState
    exit_code: int | None
    """124 timed out, 130 cancelled, 128+n died of signal n, None if lost or rejected or not over."""
    signal: str | None
    """Name of the signal that the command died of."""
    timed_out: bool
    reason: str | None
    """Why it was rejected, cancelled or lost."""
    host: str
    cpu: float
    queue_s: float
    run_s: float | None
    cpu_s: float | None
    """User and system time of the command and of those children that it waited for."""
    max_rss_mb: float | None
    """Largest resident set among the command and those children; None where it is below the gateway's own."""
    labels: dict[str, str]
    stdout: StreamStatus
    stderr: StreamStatus
    queue_position: int | None = None
    """Commands that are ahead, 0 for the next one; None when it is not queued."""


class HostStatus(Struct, frozen=True):
    name: str
    slots: float
    slots_used: float
    cores: int
    running: int
    queued: int
    queue_limit: int
    is_draining: bool
    load_1m: float | None
    memory_total_mb: int | None
    memory_available_mb: int | None
    cpu_pressure: float | None = None
    """Share of the last ten seconds in which some task waited for a core, 0 to 1 (PSI); None without PSI."""
    memory_pressure: float | None = None
    """The same for memory."""
    queue_wait_s: float | None = None
    """How long commands wait for their slots, smoothed; None before the first."""


class HostList(Struct, frozen=True):
    hosts: list[HostStatus]


class ErrorDetail(Struct, frozen=True):
    message: str
    type: str
    param: str | None
    code: str


class ErrorBody(Struct, frozen=True):
    """As OpenAI's API shapes its errors."""

    error: ErrorDetail


class ToolReport(Struct, frozen=True):
    """What the gateway posts to the proxy's ``/mars/v1/tools``. It may come twice, never late."""

    events: list[ToolObserved]
    headroom: ToolHostsObserved | None = None

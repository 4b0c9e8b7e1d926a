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
Count = Annotated[int, Meta(ge=1)]
Megabytes = Annotated[float, Meta(ge=0)]
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
    """Where a command is. All but the first three are final."""

    QUEUED = "queued"
    STARTING = "starting"
    RUNNING = "running"
    EXITED = "exited"
    TIMED_OUT = "timed_out"
    CANCELLED = "cancelled"
    OOM_KILLED = "oom_killed"
    """It was killed for its memory: by its own limit, or by its host for lack of any."""
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


class Scope(StrEnum):
    GROUP = "group"
    TREE = "tree"
    """Everything that the command started, whatever it has left."""


class Persist(StrEnum):
    """What becomes of the workspace."""

    DELETE = "delete"
    KEEP = "keep"
    """It stays on the host, and a session of the same name there begins with it."""


class LimitsRequest(Struct, frozen=True, forbid_unknown_fields=True, omit_defaults=True):
    """Of one command with all that it starts. A host that cannot hold one of them refuses the command;
    ``/v1/hosts`` says what each can."""

    memory_mb: Count | None = None
    pids: Count | None = None
    fsize_mb: Annotated[Count | None, Meta(description="Largest file it may write.")] = None
    cpu_max: Annotated[
        Annotated[float, Meta(gt=0, le=1024)] | None, Meta(description="Cores, also when others idle.")
    ] = None


class TtyRequest(Struct, frozen=True, forbid_unknown_fields=True, omit_defaults=True):
    cols: Annotated[int, Meta(ge=1, le=1000)] = 80
    rows: Annotated[int, Meta(ge=1, le=1000)] = 24


class WorkspaceRequest(Struct, frozen=True, forbid_unknown_fields=True, omit_defaults=True):
    persist: Persist = Persist.DELETE


class SessionRequest(Struct, frozen=True, forbid_unknown_fields=True, omit_defaults=True):
    """Settings of a session; a PUT replaces them, the workspace and its host stay."""

    host: Annotated[
        str | None,
        Meta(description="Host to run on. Default: where there is most room. Cannot change later."),
    ] = None
    selector: Annotated[
        dict[str, str], Meta(max_length=16, description="Labels that the host must have; see `/v1/hosts`.")
    ] = {}
    workspace: WorkspaceRequest = WorkspaceRequest()
    limits: Annotated[LimitsRequest, Meta(description="For each command that does not say its own.")] = (
        LimitsRequest()
    )
    parent: Annotated[
        str | None,
        Meta(description="Session whose command this one works for. They never wait for each other's slots."),
    ] = None
    priority: Annotated[int, Meta(ge=-10, le=10, description="Higher starts sooner.")] = 0

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
    host: str
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


class SessionList(Struct, frozen=True):
    sessions: list[SessionStatus]


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
    stdin_open: Annotated[bool, Meta(description="More input follows at `/stdin`.")] = False
    state: Annotated[
        Literal["none", "env_cwd"],
        Meta(
            description="env_cwd: begin with the exported variables and the directory that the last such"
            " command of the session left, and leave them to the next. Needs `command` and a bash."
        ),
    ] = "none"
    tty: Annotated[
        TtyRequest | None, Meta(description="Run on a terminal of its own; stderr goes to stdout.")
    ] = None
    on_exit: Annotated[
        Literal["kill_group", "keep"],
        Meta(description="keep: what it left in the background stays until its session ends."),
    ] = "kill_group"
    limits: Annotated[LimitsRequest | None, Meta(description="Default: the session's.")] = None
    memory_mb: Annotated[
        Megabytes | None,
        Meta(description="Memory to set aside for it. Default: what its kind took before."),
    ] = None
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
    heartbeat_ttl_s: Annotated[
        Annotated[float, Meta(gt=0, le=3600)] | None,
        Meta(
            description="It ends with its caller: cancelled, also in the queue, unless the first heartbeat"
            " comes within so long after it was accepted. Default: it needs none until one came."
        ),
    ] = None

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


class StdinRequest(Struct, frozen=True, forbid_unknown_fields=True, omit_defaults=True):
    data_b64: str = ""
    offset: Annotated[Bytes, Meta(description="Where it belongs; what came before is not written twice.")] = 0
    eof: Annotated[bool, Meta(description="Nothing follows.")] = False


class StdinStatus(Struct, frozen=True):
    next_offset: int


class SignalRequest(Struct, frozen=True, forbid_unknown_fields=True, omit_defaults=True):
    signal: Literal["SIGHUP", "SIGINT", "SIGQUIT", "SIGKILL", "SIGUSR1", "SIGUSR2", "SIGTERM", "SIGCONT",
                    "SIGSTOP", "SIGTSTP", "SIGWINCH"]  # fmt: skip
    scope: Scope = Scope.GROUP


class SignalStatus(Struct, frozen=True):
    was_sent: bool
    """False: it was over."""


class HeartbeatRequest(Struct, frozen=True, forbid_unknown_fields=True, omit_defaults=True):
    """Ties a command to its client: it is cancelled unless the next one comes in time."""

    ttl_s: Annotated[float, Meta(gt=0, le=3600)] = 10.0


class FileStatus(Struct, frozen=True):
    path: str
    size_bytes: int


class ArchiveStatus(Struct, frozen=True):
    path: str
    entries: int
    """Files, directories and links that were unpacked."""


class LeaseRequest(Struct, frozen=True, forbid_unknown_fields=True, omit_defaults=True):
    """Admission for a command that the caller runs itself, on a host of ours or beside it."""

    session: Annotated[Text, Meta(max_length=128, description="Takes turns with others; need not exist.")]
    host: Annotated[str | None, Meta(description="Default: the session's, else the gateway's own.")] = None
    cpu: Annotated[float, Meta(ge=0, le=1024)] = 1.0
    memory_mb: Megabytes | None = None
    command_sha256: Annotated[
        Annotated[str, Meta(pattern="^[0-9a-f]{64}$")] | None,
        Meta(
            description="Of the command's text, which joins it with its turn. Of `bash -c TEXT` it is TEXT,"
            " of another argument list the line that one would type."
        ),
    ] = None
    program: Annotated[
        Annotated[str, Meta(max_length=64)] | None, Meta(description="Its name, to learn by.")
    ] = None
    ttl_s: Annotated[float, Meta(gt=0, le=3600, description="Ends unless renewed before.")] = 30.0
    queue_timeout_s: Seconds | None = None
    labels: Labels = {}


class LeaseRenewal(Struct, frozen=True, forbid_unknown_fields=True, omit_defaults=True):
    ttl_s: Annotated[float, Meta(gt=0, le=3600)] = 30.0
    rss_mb: Annotated[
        Megabytes | None,
        Meta(
            description="Resident memory of what runs under it on its host. Default: not known; then it is"
            " taken for other programs' there, on top of what is set aside for the lease."
        ),
    ] = None


class LeaseEnding(Struct, frozen=True, forbid_unknown_fields=True, omit_defaults=True):
    exit_code: int | None = None
    cpu_s: Seconds | None = None
    max_rss_mb: Megabytes | None = None


class LeaseState(StrEnum):
    QUEUED = "queued"
    HELD = "held"
    RELEASED = "released"
    EXPIRED = "expired"
    REJECTED = "rejected"
    """No room within ``queue_timeout_s``."""


class LeaseStatus(Struct, frozen=True):
    id: str
    session: str
    host: str
    state: LeaseState
    cpu: float
    queue_s: float
    expires_in_s: float | None
    """None unless it is held."""
    queue_position: int | None
    reason: str | None = None


class DrainRequest(Struct, frozen=True, forbid_unknown_fields=True, omit_defaults=True):
    is_draining: bool = True


class HostCapabilities(Struct, frozen=True):
    """What a host can hold a command to, and what does hold for every command there."""

    containment: Literal["cgroup_v2", "cgroup_v1", "process_group"]
    """How all of a command's processes are found when it ends; a process group is helped by a marker."""
    can_limit_memory: bool
    can_limit_pids: bool
    can_limit_cpu: bool
    has_pressure: bool
    """Kernel tells pressure stall (PSI)."""
    isolates_sessions: bool = False
    """Each session has a user of its own, and its commands are that user's."""
    sandbox: Literal["none", "bwrap"] = "none"
    """What commands run in."""
    refuses_commands: str | None = None
    """Why no command is run there: the host's settings demand one of the two above, and it cannot."""


class HostStatus(Struct, frozen=True):
    name: str
    state: Literal["up", "connecting", "down"]
    labels: dict[str, str]
    capabilities: HostCapabilities | None
    """None until it was reached once."""
    sessions: int
    slots: float
    slots_used: float
    memory_reserved_mb: float
    """Set aside for what runs."""
    cores: float | None
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
    """All hosts together: amounts are added, pressure and wait are the worst host's."""
    hosts: list[ToolHostsObserved] = []
    """The same, host by host under their names; whoever reads these leaves ``headroom`` alone."""

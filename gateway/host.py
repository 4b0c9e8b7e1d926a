"""What the gateway asks of a host that runs commands, and the shapes in which the host answers.

Declared by the consumer: ``execs``, ``sessions`` and the routes know only this. ``agent_client`` is it for a
real host, whatever the way there. Owns no behaviour.
"""

from collections.abc import Mapping
from dataclasses import dataclass, field
from enum import Enum
from typing import Any, Literal, Protocol

from gateway.protocol import HostCapabilities, StreamName


@dataclass(frozen=True, slots=True)
class ResourceLimits:
    """None: no limit of that kind."""

    memory_mb: int | None = None
    pids: int | None = None
    fsize_mb: int | None = None
    cpu_max: float | None = None
    """Cores."""


@dataclass(frozen=True, slots=True)
class TerminalSize:
    cols: int
    rows: int


@dataclass(frozen=True, slots=True)
class RunOrder:
    exec_id: str
    session: str
    """Name of the session on the host (of tenant and session together)."""
    argv: tuple[str, ...]
    cwd: str
    """Relative to the workspace, or absolute where that is allowed; the host looks at it when it starts."""
    env: Mapping[str, str]
    """Beside what the host itself sets (PATH, HOME)."""
    stdin: bytes
    timeout_s: float
    kill_grace_s: float
    """Between SIGTERM and SIGKILL when ``timeout_s`` is over."""
    max_output_bytes: int
    merges_output: bool
    limits: ResourceLimits = ResourceLimits()
    cpu_weight: float = 1.0
    """Share beside other commands where there are more than cores: what was asked for as ``cpu``."""
    keeps_state: bool = False
    """Begin with the variables and directory that the session's last such command left, and leave ours."""
    keeps_stdin: bool = False
    """More input comes later."""
    tty: TerminalSize | None = None
    keeps_children: bool = False
    """Leave background processes when the leader ends (until the session ends)."""
    may_start_outside: bool = False
    """``cwd`` may be outside of the workspace."""
    record: Mapping[str, Any] = field(default_factory=dict)
    """What a gateway that comes back needs to go on; JSON."""
    boot_id: str | None = None
    """Life of the host in which it was first to be sent: another one may not know any more that it was run,
    and then it is ended by nobody. None: this one."""


class EndedBy(Enum):
    ITSELF = "itself"
    TIMEOUT = "timeout"
    STOP = "stop"
    OOM = "oom"
    """Killed for its memory."""
    NOBODY = "nobody"
    """It did not end, or how it ended cannot be known."""


@dataclass(frozen=True, slots=True)
class StreamCount:
    total_bytes: int = 0
    kept_bytes: int = 0


@dataclass(frozen=True, slots=True)
class HostExec:
    """A command as its host sees it."""

    exec_id: str
    ended_by: EndedBy | None
    """None: it runs."""
    returncode: int | None = None
    """As ``subprocess`` has it: -n when it died of signal n."""
    run_s: float | None = None
    cpu_s: float | None = None
    max_rss_mb: float | None = None
    reason: str | None = None
    stdout: StreamCount = StreamCount()
    stderr: StreamCount = StreamCount()
    existed: bool = False
    """The answer to a start that had been made before."""
    record: Mapping[str, Any] | None = None
    head: Mapping[StreamName, bytes] | None = None
    """Beginning of each stream, with the end of a wait that asked for it."""


@dataclass(frozen=True, slots=True)
class Chunk:
    data: bytes
    next_offset: int
    is_eof: bool
    total_bytes: int
    kept_bytes: int


@dataclass(frozen=True, slots=True)
class FileChunk:
    data: bytes
    size: int
    mode: int
    mtime_s: float
    is_eof: bool


@dataclass(frozen=True, slots=True)
class HostSession:
    name: str
    workspace: str
    """Absolute path there."""
    is_new: bool
    record: Mapping[str, Any]


@dataclass(frozen=True, slots=True)
class Reading:
    """What a host has and has left. None is unknown."""

    cores: float | None = None
    load_1m: float | None = None
    cpu_busy: float | None = None
    """Share of all cores that worked since the reading before, 0 to 1."""
    cpu_pressure: float | None = None
    """Share of the last ten seconds in which some task waited for a core (PSI), 0 to 1."""
    memory_pressure: float | None = None
    memory_total_mb: int | None = None
    memory_available_mb: int | None = None
    """Within the agent's own cgroup where that has less than the machine."""
    disk_free_mb: int | None = None
    """Where output and workspaces are."""
    processes: int | None = None
    execs: Mapping[str, "ExecUse"] = field(default_factory=dict)


@dataclass(frozen=True, slots=True)
class ExecUse:
    cpu_s: float | None
    rss_mb: float | None


class StartError(Exception):
    """The command was not started, and will not be."""

    def __init__(self, reason: str, exit_code: int | None = None) -> None:
        super().__init__(reason)
        self.reason = reason
        self.exit_code = exit_code
        """126 or 127 where a shell would say so: the program is there no more than its exit code."""


class HostLost(Exception):
    """The host could not be asked for longer than we wait; what happened there is not known."""


class HostFault(Exception):
    """The host answered no; ``code`` is one of ``host_agent.wire.Fault``."""

    def __init__(self, code: str, message: str) -> None:
        super().__init__(message)
        self.code = code
        self.message = message


class CommandHost(Protocol):
    """One host. Everything here may be called at any time and outlives breaks of the connection: a call
    waits for the host to come back and raises HostLost after its ``lost_after_s``. Cancelling a call has no
    effect on the command."""

    @property
    def name(self) -> str: ...

    @property
    def state(self) -> Literal["up", "connecting", "down"]:
        """Of the connection now. A call waits also where it is not "up"."""
        ...

    @property
    def boot_id(self) -> str | None:
        """Of this life of the host, as far as we have heard; None before it was reached, or where it does not
        say."""
        ...

    @property
    def capabilities(self) -> HostCapabilities | None:
        """None until it was reached once."""
        ...

    async def start(self, order: RunOrder) -> HostExec:
        """At most once per ``exec_id``, whatever breaks. Raises StartError, HostLost."""
        ...

    async def wait(self, exec_id: str, wait_s: float, inline_bytes: int = 0) -> HostExec:
        """Returns when it is over or ``wait_s`` later. Raises HostLost, HostFault."""
        ...

    async def stop(self, exec_id: str, grace_s: float) -> None: ...

    async def read(
        self, exec_id: str, stream: StreamName, offset: int, limit: int, wait_s: float
    ) -> Chunk: ...

    async def write_stdin(self, exec_id: str, data: bytes, offset: int, *, is_eof: bool) -> int:
        """Returns the next offset."""
        ...

    async def signal(self, exec_id: str, name: str, scope: str) -> bool: ...

    async def resize(self, exec_id: str, size: TerminalSize) -> None: ...

    async def forget(self, exec_id: str, taken_s: float) -> None:
        """Its output goes; its id stays taken for so long."""
        ...

    async def list_execs(self) -> list[HostExec]: ...

    async def put_session(self, name: str, record: Mapping[str, Any]) -> HostSession: ...

    async def list_sessions(self) -> list[HostSession]: ...

    async def remove_session(self, name: str, *, keeps_workspace: bool = False) -> None:
        """Ends what runs in it; again is the same as once."""
        ...

    async def read_file(self, session: str, path: str, offset: int, limit: int) -> FileChunk: ...

    async def write_file(
        self,
        session: str,
        path: str,
        upload: str,
        offset: int,
        data: bytes,
        *,
        is_last: bool,
        mode: int | None,
    ) -> int: ...

    async def remove_file(self, session: str, path: str) -> bool: ...

    async def open_archive(self, session: str, path: str, mode: str) -> str:
        """``mode``: "read" or "write". Returns a handle that a break of the connection ends (HostFault)."""
        ...

    async def read_archive(self, handle: str) -> tuple[bytes, bool]: ...

    async def write_archive(self, handle: str, data: bytes, *, is_last: bool) -> int: ...

    async def close_archive(self, handle: str) -> None: ...

    async def observe(self) -> Reading: ...

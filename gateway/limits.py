"""How much one caller, one command and one gateway may use.

Owns numbers and their reasons; the command line derives its flags from these fields.
"""

import os
from dataclasses import dataclass, field


def usable_cores() -> int:
    """Cores that this process may run on, which in a container are fewer than the machine has."""
    return len(os.sched_getaffinity(0))


class ConfigError(Exception):
    """A setting is wrong; the message names it and what is allowed."""


@dataclass(frozen=True, slots=True)
class Limits:
    """Times in seconds, sizes in bytes."""

    slots: float = field(default_factory=usable_cores)
    """CPU slots to hand out; a command takes `cpu` of them. Default: the cores this process may use."""
    short_places: int | None = None
    """Places beyond the slots for commands that are over within a second as a rule, so that they never wait
    behind a build. Default: one for every two slots; 0: none."""
    queue_limit: int = 256
    """Commands that may wait for a slot; one more is answered 429 and not run."""
    queue_timeout_s: float = 60.0
    """How long a command waits unless it says otherwise. Agents give up after 30 to 120 s, wait included."""
    timeout_s: float = 600.0
    """How long a command runs unless it says otherwise."""
    max_timeout_s: float = 86400.0
    """Longest run that a command may ask for."""
    drain_grace_s: float = 5.0
    """Between SIGTERM and SIGKILL when the gateway shuts down, at most."""
    drain_hosts_s: float = 10.0
    """For hosts to say, after that grace, that all has ended; one that does not answer is left as it is.
    Requests that are not answered by then, such as long transfers, are cut."""

    max_sessions: int = 1000
    """Sessions, and so workspaces, at a time."""
    session_idle_ttl_s: float = 3600.0
    """A session without a command for so long is ended, unless it says otherwise."""
    max_execs: int = 10_000
    """Commands on record; the oldest finished ones are forgotten first."""
    exec_ttl_s: float = 3600.0
    """How long a finished command and its output can be asked for."""
    max_idempotency_keys: int = 100_000
    """Keys on record. Full means 429: forgetting one early could run a command twice."""
    idempotency_ttl_s: float = 2 * 86400.0
    """The longest command and a day: no client retries later than that."""

    max_body_bytes: int = 4 << 20
    """Request body."""
    max_file_bytes: int = 4 << 30
    """One file that is written into a workspace."""
    max_archive_bytes: int = 8 << 30
    """One archive that is unpacked into a workspace, as it is sent."""
    max_command_bytes: int = 128 << 10
    """Command text or arguments; the kernel's own limit for one argument (MAX_ARG_STRLEN)."""
    max_stdin_bytes: int = 2 << 20
    """Standard input, decoded."""
    max_env_bytes: int = 64 << 10
    """Names and values, of session and command together."""
    output_bytes: int = 8 << 20
    """Kept of each stream unless the command says otherwise."""
    max_output_bytes: int = 256 << 20
    """Most that a command may ask to be kept of each stream."""
    max_spool_bytes: int = 8 << 30
    """Output of all finished commands on disk; the oldest are forgotten first."""
    inline_output_bytes: int = 64 << 10
    """Beginning of each stream that the status of a finished command carries."""
    head_cache_bytes: int = 64 << 20
    """Such beginnings in memory, the latest; older ones are read from their hosts again."""

    allow_absolute_cwd: bool = False
    """Let commands start outside of the workspace of their session."""

    def __post_init__(self) -> None:
        for name in self.__slots__:
            value = getattr(self, name)
            least = 0.05 if name == "slots" else 0
            if value is not None and value < least:
                raise ConfigError(f"{name} must be at least {least}, not {value}")

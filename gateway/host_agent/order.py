"""What ``exec.start`` asks for, read from its frame.

Owns the fields and their bounds. Must not know how a command is started.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any

from gateway.host_agent import exec_fields as read
from gateway.host_agent.cgroups import Limits
from gateway.host_agent.isolation import Isolation
from gateway.host_agent.wire import Frame

_LONGEST_S = 7 * 86400
"""As long as the REST API lets a command run."""
_LONGEST_GRACE_S = 3600
_MAX_SIDE = 1000
"""Of a terminal, in characters."""


@dataclass(frozen=True)
class TerminalSize:
    cols: int
    rows: int


@dataclass(frozen=True)
class Order:
    exec_id: str
    session: str
    argv: tuple[str, ...]
    cwd: str
    env: Mapping[str, str]
    timeout_s: float
    kill_grace_s: float
    max_output_bytes: int
    merges_output: bool = False
    stdin: bytes = b""
    keeps_stdin: bool = False
    keeps_env_cwd: bool = False
    keeps_children: bool = False
    may_start_outside: bool = False
    """Of the workspace."""
    tty: TerminalSize | None = None
    limits: Limits = field(default_factory=Limits)
    fsize_mb: int | None = None
    isolation: Isolation = field(default_factory=Isolation)
    """What its gateway demands: it is refused where that does not hold."""
    record: Mapping[str, Any] = field(default_factory=dict)
    boot_id: str | None = None
    """Life of the host in which alone it may begin; None: any."""

    def on_disk(self) -> dict[str, Any]:
        """What a later agent needs to know, without environment and input: there are secrets in them."""
        return {
            "session": self.session,
            "record": dict(self.record),
            "on_exit": "keep" if self.keeps_children else "kill_group",
        }


def order_of(frame: Frame, isolation: Isolation) -> Order:
    """Raises Refused."""
    header = frame.header
    output = read.mapping(header, "output")
    limits = read.mapping(header, "limits")
    return Order(
        exec_id=read.exec_name(header),
        session=read.text(header, "session"),
        argv=read.words(header, "argv"),
        cwd=read.text(header, "cwd", ""),
        env=read.variables(header, "env"),
        timeout_s=read.number(header, "timeout_s", most=_LONGEST_S),
        kill_grace_s=read.number(header, "kill_grace_s", most=_LONGEST_GRACE_S),
        max_output_bytes=read.whole(output, "max_bytes"),
        merges_output=read.flag(output, "merge"),
        stdin=frame.payload,
        keeps_stdin=read.flag(header, "keep_stdin"),
        keeps_env_cwd=read.one_of(header, "state", ("none", "env_cwd"), "none") == "env_cwd",
        keeps_children=read.one_of(header, "on_exit", ("kill_group", "keep"), "kill_group") == "keep",
        may_start_outside=read.flag(header, "allow_outside"),
        tty=None if header.get("tty") is None else terminal_size(read.mapping(header, "tty")),
        limits=_limits(limits),
        fsize_mb=_at_least_one(limits, "fsize_mb"),
        isolation=isolation,
        record=read.mapping(header, "record"),
        boot_id=None if header.get("boot_id") is None else read.text(header, "boot_id"),
    )


def terminal_size(header: Mapping[str, Any]) -> TerminalSize:
    return TerminalSize(
        read.whole(header, "cols", 1, _MAX_SIDE),
        read.whole(header, "rows", 1, _MAX_SIDE),
    )


def _limits(limits: Mapping[str, Any]) -> Limits:
    return Limits(
        memory_mb=_at_least_one(limits, "memory_mb"),
        pids=_at_least_one(limits, "pids"),
        cpu_max=None if limits.get("cpu_max") is None else read.number(limits, "cpu_max", 0.01, 1024),
        cpu_weight=1.0
        if limits.get("cpu_weight") is None
        else read.number(limits, "cpu_weight", 0.001, 10_000),
    )


def _at_least_one(limits: Mapping[str, Any], name: str) -> int | None:
    return None if limits.get(name) is None else read.whole(limits, name, 1)

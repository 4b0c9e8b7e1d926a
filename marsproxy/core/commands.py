"""Orders that the policy gives. The dispatcher enacts all of them before it awaits anything."""

from dataclasses import dataclass
from enum import Enum


class Reason(Enum):
    """Why a turn was held or refused; shown to the client and counted in the metrics."""

    KV_FULL = "kv_full"
    TOOLS_BUSY = "tools_busy"
    TELEMETRY_UNKNOWN = "telemetry_unknown"
    BEHIND_OTHERS = "behind_others"
    QUEUE_FULL = "queue_full"
    HELD_TOO_LONG = "held_too_long"
    TABLE_FULL = "table_full"


@dataclass(frozen=True, slots=True)
class ForwardTurn:
    turn_id: str
    backend: str
    priority: int
    """vLLM's: lower runs earlier."""
    decision: str
    """Plain word for the ``X-Mars-Decision`` header: "admitted", "continuation", "side", ..."""


@dataclass(frozen=True, slots=True)
class HoldTurn:
    turn_id: str
    reason: Reason
    position: int
    """1 is next."""


@dataclass(frozen=True, slots=True)
class RejectTurn:
    turn_id: str
    reason: Reason
    retry_after_s: float


@dataclass(frozen=True, slots=True)
class ForgetSession:
    """The session expired or ended: the shell drops what it keeps about it."""

    session_id: str


@dataclass(frozen=True, slots=True)
class SetTimer:
    """Call back with ``TimerFired`` at ``at_s``; a later ``SetTimer`` replaces an earlier one."""

    at_s: float


Command = ForwardTurn | HoldTurn | RejectTurn | ForgetSession | SetTimer

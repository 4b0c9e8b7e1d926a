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
    BACKEND_LOST = "backend_lost"
    """No other backend could take a turn that one had failed."""
    NO_BACKEND = "no_backend"
    """All that serve its model are draining or gone."""
    TENANT_TURNS = "tenant_turns"
    TENANT_SESSIONS = "tenant_sessions"
    TENANT_TOKENS = "tenant_tokens"


class YieldsTo(Enum):
    """Who may take leased blocks before the lease is over. Whatever it says: when nothing runs, anybody."""

    ANYBODY = "anybody"
    """A request that would else wait or preempt another."""
    RETURNING = "returning"
    """The same, but no turn with ``may_break_leases`` off."""
    NOBODY = "nobody"


@dataclass(frozen=True, slots=True)
class KvLease:
    """Advice that goes with a turn: keep its blocks once it has ended well. What asks for it with the
    request cannot come too late."""

    ttl_s: float
    """From the turn's end. A bound for when nobody ends it: the policy ends what it does not want."""
    yields_to: YieldsTo


@dataclass(frozen=True, slots=True)
class ForwardTurn:
    turn_id: str
    backend: str
    priority: int
    """vLLM's: lower runs earlier."""
    decision: str
    """Plain word for the ``X-Mars-Decision`` header: "admitted", "continuation", "side", ..."""
    may_break_leases: bool = True
    """Whether its prefill may take blocks that leases with ``YieldsTo.RETURNING`` protect. A new session
    may not, while anything else runs."""
    lease: KvLease | None = None
    """None on a backend that does not take hints."""


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


class KvAction(Enum):
    """What a backend is advised to do with the KV blocks of a session that is between two turns."""

    KEEP = "keep"
    """Lease them for ``ttl_s``: they leave the queue of blocks that are reused."""
    RELEASE = "release"
    """End the lease: they become the last of those that are reused, as if just freed."""
    DEMOTE = "demote"
    """End the lease: they become the first of those that are reused."""
    SWAP_OUT = "swap_out"
    """Copy them to host memory and free them; the next turn copies them back. Needs a host tier."""


@dataclass(frozen=True, slots=True)
class HintKv:
    """Advice to a backend that ``takes_hints``; it may ignore it, and says so with ``HintAnswered``."""

    session_id: str
    backend: str
    action: KvAction
    ttl_s: float | None = None
    """Of KEEP; None is until the next hint or the session's next turn."""
    yields_to: YieldsTo = YieldsTo.RETURNING


@dataclass(frozen=True, slots=True)
class Reprioritise:
    """Change the priority of a turn in flight. Only engines that ``takes_hints`` can."""

    turn_id: str
    priority: int


@dataclass(frozen=True, slots=True)
class ForgetSession:
    """The session expired or ended: the shell drops what it keeps about it."""

    session_id: str


@dataclass(frozen=True, slots=True)
class SetTimer:
    """Call back with ``TimerFired`` at ``at_s``; a later ``SetTimer`` replaces an earlier one."""

    at_s: float


Command = ForwardTurn | HoldTurn | RejectTurn | HintKv | Reprioritise | ForgetSession | SetTimer

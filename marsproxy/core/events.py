"""Past facts that the policy is told. One line of the event log is one of these.

All times are seconds on the caller's clock and travel beside the event (``handle(event, now)``).
``None`` means unknown; 0 means zero.
"""

from dataclasses import dataclass
from enum import Enum

from marsproxy.core.evidence import TurnKind

BYTES_PER_TOKEN = 4
"""First guess for prompts, which the estimate of an arrival is made with; corrected by what usage says."""


class Ending(Enum):
    """How a turn ended. Only a finished one teaches the estimators anything."""

    FINISHED = "finished"
    ABORTED = "aborted"
    """The client went away or cancelled."""
    FAILED = "failed"
    """The backend answered with an error, broke off, or could not be reached."""


@dataclass(frozen=True, slots=True)
class TurnArrived:
    """A tracked request was read and its session is known."""

    turn_id: str
    session_id: str
    kind: TurnKind
    tenant: str
    family: str
    prompt_tokens_estimate: int
    """From the body's bytes; replaced by usage as soon as a turn of the session has finished."""
    turn: int = 0
    parent_session_id: str | None = None
    max_tokens: int | None = None
    has_tools: bool = True
    is_streaming: bool = False
    model: str | None = None
    """As the request names it; None where it names none."""


@dataclass(frozen=True, slots=True)
class TurnResumed:
    """A turn that was under way before its replica came (back) among the others: as it stands."""

    arrival: TurnArrived
    backend: str | None
    """Where it is in flight, whatever that does to the budget; None while it is held."""
    waited_s: float = 0.0
    """For how long it has been held."""


@dataclass(frozen=True, slots=True)
class TurnBounced:
    """A backend did not take a turn that was forwarded to it, and nothing of an answer has reached the
    client: the turn may go elsewhere. Answered by one more ``ForwardTurn``, now or later, or a
    ``RejectTurn``."""

    turn_id: str
    backend: str


@dataclass(frozen=True, slots=True)
class TurnFirstToken:
    turn_id: str


@dataclass(frozen=True, slots=True)
class TurnProgressed:
    """A turn in flight has generated this many tokens so far. Told now and then, never for every token."""

    turn_id: str
    completion_tokens: int


@dataclass(frozen=True, slots=True)
class TurnEnded:
    """A turn that had arrived is over, in any way, whether it had been forwarded or was still held."""

    turn_id: str
    ending: Ending
    prompt_tokens: int | None = None
    cached_tokens: int | None = None
    completion_tokens: int | None = None
    tool_calls: int = 0
    tool_signature: str | None = None
    """Name of the tool called (first one), for learning how long its gaps are."""
    command_digests: tuple[str, ...] = ()
    """Hex SHA-256 of each command that the tool calls ask for, to find them again at the gateway."""
    tool_call_ids: tuple[str, ...] = ()
    """Ids that the engine gave the calls, for the same."""


@dataclass(frozen=True, slots=True)
class BackendObserved:
    """One reading of a backend's telemetry."""

    backend: str
    kv_tokens_total: int | None = None
    kv_used_ratio: float | None = None
    """Referenced blocks over all blocks, 0 to 1. Goes stale in an idle vLLM (0.32): phantom pressure."""
    running: int | None = None
    waiting: int | None = None
    preemptions_total: int | None = None
    prefix_queries_total: int | None = None
    """Prompt tokens looked up in the prefix cache since the engine started."""
    prefix_hits_total: int | None = None
    """Of those, tokens that were found."""
    takes_hints: bool = False
    """It understands ``HintKv``: an engine with the backend patch, or the simulated one."""
    kv_leased_tokens: int | None = None
    """Tokens in blocks that leases protect and no request refers to."""
    kv_swap_tokens_per_s: float | None = None
    """Speed of its host tier, out or in, for ``KvAction.SWAP_OUT``; None without one."""


@dataclass(frozen=True, slots=True)
class HintAnswered:
    """What a backend made of a ``HintKv``."""

    session_id: str
    backend: str
    kept_tokens: int | None = None
    """Tokens that the lease covers; 0 when it was refused or nothing was there."""


@dataclass(frozen=True, slots=True)
class KvReclaimed:
    """A backend took leased blocks of a session before the lease was over."""

    session_id: str
    backend: str
    tokens: int


@dataclass(frozen=True, slots=True)
class LeaseResumed:
    """A session's turn was scheduled while its blocks were leased, which ended the lease."""

    session_id: str
    backend: str
    leased_tokens: int
    hit_tokens: int
    """Of those, found in the turn's prompt. Fewer where the client changed its history, or the chat
    template writes an answer otherwise than the model did."""


@dataclass(frozen=True, slots=True)
class LeaseExpired:
    """The lease's time was up and the session had not come back."""

    session_id: str
    backend: str
    tokens: int


@dataclass(frozen=True, slots=True)
class BackendUnreachable:
    """A reading was due and did not come."""

    backend: str


@dataclass(frozen=True, slots=True)
class BackendSpec:
    """One of the backends that may be used."""

    name: str
    models: tuple[str, ...] | None = None
    """Those that it serves; None where it did not say: any."""
    is_draining: bool = False
    """Takes no new session; those that it has go on there until they rest."""


@dataclass(frozen=True, slots=True)
class BackendsChanged:
    """The backends from now on, all of them. One that is missing is gone, with what was cached there."""

    backends: tuple[BackendSpec, ...]


@dataclass(frozen=True, slots=True)
class StandingAlone:
    """This replica and the others do not hear each other any more, and each goes on with its part of what is
    free; the others' turns and sessions are not its own business from now on."""

    replicas: int
    """That share, this one included; at least 1."""
    sessions_elsewhere: tuple[str, ...] = ()
    """Whose latest turn went through another replica."""


@dataclass(frozen=True, slots=True)
class StandingTogether:
    """The replicas hear each other again: budgets are whole."""


@dataclass(frozen=True, slots=True)
class TenantLimits:
    """What one tenant may have. ``None`` is no limit."""

    tenant: str
    """Fingerprint, as ``TurnArrived.tenant``."""
    weight: float = 1.0
    """Share against the others while they compete."""
    max_open_turns: int | None = None
    """Held and in flight."""
    max_sessions: int | None = None
    """That are counted or wait to be."""
    tokens_per_s: float | None = None
    """Prompt tokens that were not cached, and generated ones: refills at this rate."""
    burst_tokens: float | None = None
    """Most that can be saved up; None is a minute's worth."""


@dataclass(frozen=True, slots=True)
class TenantsChanged:
    """The limits from now on, all of them. A tenant that is not named has none, and weight 1."""

    tenants: tuple[TenantLimits, ...]


class ToolPhase(Enum):
    QUEUED = "queued"
    STARTED = "started"
    FINISHED = "finished"


@dataclass(frozen=True, slots=True)
class ToolObserved:
    """The gateway ran a step of a tool command."""

    exec_id: str
    phase: ToolPhase
    gateway_session: str
    llm_session: str | None = None
    """Session id that the caller knew the agent by, if it said so."""
    tool_call_id: str | None = None
    command_digest: str | None = None
    """Hex SHA-256 of the command text: joins tool and turn when no id does."""
    queue_s: float | None = None
    run_s: float | None = None
    exit_code: int | None = None
    tool_signature: str | None = None
    """Name of the tool or program, for learning; never its arguments."""
    memory_peak_mb: float | None = None
    principal: str | None = None
    """Who gave the command, of those that the gateway tells apart; None where it does not."""
    host: str | None = None
    """Where it waits or runs."""


@dataclass(frozen=True, slots=True)
class ToolHostsObserved:
    """Headroom of one tool host by its name, or of all together under the name "". Where hosts are known
    by name, what is said of all together counts for nothing: it is the same once more."""

    cores: float | None = None
    """What may run at a time in its place, where slots are handed out."""
    running: int | None = None
    queued: int | None = None
    memory_available_mb: int | None = None
    host: str = ""
    memory_total_mb: int | None = None
    cpu_pressure: float | None = None
    """Share of the last ten seconds in which some task waited for a core, 0 to 1 (PSI ``some avg10``)."""
    memory_pressure: float | None = None
    """The same for memory."""
    queue_wait_s: float | None = None
    """How long the latest tools waited for a slot, smoothed by the gateway."""


@dataclass(frozen=True, slots=True)
class SessionEnded:
    """Somebody said that the session is over: header, API call, gateway session closed."""

    session_id: str


@dataclass(frozen=True, slots=True)
class TimerFired:
    """A ``SetTimer`` came due."""


Event = (
    TurnArrived
    | TurnResumed
    | TurnBounced
    | TurnFirstToken
    | TurnProgressed
    | TurnEnded
    | BackendObserved
    | BackendUnreachable
    | BackendsChanged
    | StandingAlone
    | StandingTogether
    | TenantsChanged
    | HintAnswered
    | KvReclaimed
    | LeaseResumed
    | LeaseExpired
    | ToolObserved
    | ToolHostsObserved
    | SessionEnded
    | TimerFired
)

"""What proxy and backend patch say to each other: fields of a request, paths, bodies.

Owns the names; both sides import them from here and nothing else of each other. All of it is advice:
a stock vLLM passes the fields over and answers the paths with 404. Unknown members are ignored and new
ones have defaults, so either side may be newer than the other; ``PROTOCOL`` changes only when an old
reader would misunderstand.

Operation names are those of vLLM's open proposals for KV hints (issues 51428 and 53421), and an answer
says accepted, clipped, rejected or missing as they do, so that the switch to ``kv_hints`` actions, once
an engine executes them, is one of transport.
"""

from enum import StrEnum

import msgspec

PROTOCOL = 1

HEADROOM_PATH = "/v1/mars/headroom"
"""GET: ``Headroom``. ``?after=RANK:SEQ,...`` adds the lease endings later than those numbers."""
CAPABILITIES_PATH = "/v1/mars/capabilities"
"""GET: ``Capabilities``."""
SESSIONS_PATH = "/v1/mars/sessions"
"""GET: list of ``SessionState``; ``?session=NAME`` only of that one, ``?resident=1`` looks up what is cached.
``/{session}/kv`` POST: ``KvRequest`` less its session; ``KvAnswer``."""
BATCH_PATH = "/v1/mars/kv"
"""POST: list of ``KvRequest``; a list of ``KvAnswer``, one for each, in the same order."""

RPC_METHOD = "mars_rpc"
"""Method of vLLM's ``EngineCore``: ``(op: str, body: str) -> str``, an ``Rpc`` and two JSON texts. Answers
between two steps of the engine."""


class Rpc(StrEnum):
    """Operations of ``RPC_METHOD``."""

    KV = "kv"
    """List of ``KvRequest``; a list of ``KvAnswer``, one for each, in the same order."""
    SESSIONS = "sessions"
    """``SessionsQuery``; a list of ``SessionState``."""
    HEADROOM = "headroom"
    """``HeadroomQuery``; ``RankHeadroom``."""
    CAPABILITIES = "capabilities"
    """Nothing; ``Capabilities``."""


MAX_BATCH = 1024
"""Operations in one batch: some milliseconds of the engine's time."""
MAX_NAME_CHARS = 256
"""Of a session's or a branch's name. Longer ones are taken for absent."""


class XArg(StrEnum):
    """Members of a request's ``vllm_xargs`` (vLLM 0.28 to 0.33: scalars and lists, no booleans)."""

    SESSION = "mars_session"
    """Whose turn it is. Goes before ``X-Session-ID`` and the body's ``session_id``."""
    BRANCH = "mars_branch"
    """Which of several conversations of one session; "" if absent. Each has a lease of its own."""
    TTL_MS = "mars_ttl_ms"
    """Lease the request's blocks for so long when it ends well; 0 or absent: no lease."""
    MODE = "mars_mode"
    """A ``LeaseMode``; soft if absent."""
    FINAL = "mars_final"
    """1: the last turn of its session; afterwards its blocks are recycled and it is forgotten."""
    TURN_CLASS = "mars_class"
    """A ``TurnClass``; if absent the engine goes by whether it has seen an earlier turn of the session."""


class TurnClass(StrEnum):
    NEW = "new"
    """May not break leases while anything else runs."""
    CONTINUATION = "continuation"


class LeaseMode(StrEnum):
    """Who may take leased blocks before the lease is over. Whatever it says: when nothing runs, anybody."""

    OPEN = "open"
    """Any request that could not be scheduled else."""
    SOFT = "soft"
    """Running requests and continuations; new sessions only after they have waited for ``aging_s``."""
    HARD = "hard"
    """Requests that run and need another block."""


class KvOp(StrEnum):
    PIN = "pin"
    """Lease what is cached of the session's last turn, or replace the lease that there is."""
    RELEASE = "release"
    """End the lease: the blocks are cached as if just freed."""
    RECYCLE = "recycle"
    """End the lease: the blocks stay cached, but are the first to be reused. Not those that others share."""
    EVICT = "evict"
    """Drop the blocks, but those that other sessions share."""
    DEMOTE = "demote"
    """Drop the copy on the accelerator where one in host memory exists; rejected without a host tier."""
    END = "end"
    """Recycle, and forget the session."""


class KvStatus(StrEnum):
    ACCEPTED = "accepted"
    CLIPPED = "clipped"
    """Done in part: a shorter prefix, or a shorter time."""
    REJECTED = "rejected"
    """Not done; ``reason`` says why."""
    MISSING = "missing"
    """The session, or anything cached of it, is not known."""


class KvRequest(msgspec.Struct, frozen=True, omit_defaults=True):
    """One operation on one session's blocks."""

    op: KvOp
    session: str = ""
    """In a batch; else the path has it."""
    branch: str | None = None
    """None is all branches (of PIN: the one that ended last)."""
    ttl_ms: int | None = None
    """Of PIN; None is the longest allowed."""
    mode: LeaseMode = LeaseMode.SOFT


class SessionsQuery(msgspec.Struct, frozen=True, omit_defaults=True):
    session: str | None = None
    """None is all of them."""
    with_resident: bool = False
    """Look up how much is cached: tens of microseconds for each branch."""


class HeadroomQuery(msgspec.Struct, frozen=True, omit_defaults=True):
    after: int = 0
    """Send the lease endings later than this number."""


class KvAnswer(msgspec.Struct, frozen=True, omit_defaults=True):
    status: KvStatus
    session: str
    op: KvOp
    blocks: int = 0
    tokens: int = 0
    expires_in_ms: int | None = None
    """Of a lease."""
    reason: str | None = None
    """A word for programs: ``budget``, ``no_host_tier``, ``running``, ``passthrough``."""


class Ending(StrEnum):
    """How a lease ended, where that teaches something."""

    RESUMED = "resumed"
    """The session's next turn was scheduled."""
    RECLAIMED = "reclaimed"
    """Somebody who may needed the blocks. The rest of the lease, if any, goes on."""
    EXPIRED = "expired"


class LeaseEnding(msgspec.Struct, frozen=True, omit_defaults=True):
    seq: int
    """Counts the endings of one rank, from 1."""
    session: str
    how: Ending
    tokens: int
    """That were leased; of RECLAIMED, those that were taken."""
    hit_tokens: int | None = None
    """Of RESUMED: leased ones that the next turn did find in its prompt."""
    branch: str = ""


class RankHeadroom(msgspec.Struct, frozen=True, omit_defaults=True):
    """One scheduler (data parallel rank) as it was after its last step. Unknown is None."""

    rank: int
    step: int
    at_s: float
    """Wall clock (Unix seconds). An idle engine writes nothing, and what it wrote last still holds."""
    block_tokens: int
    blocks: int
    free_blocks: int
    """In no request's and no lease's hands."""
    leased_blocks: int
    """In leases only."""
    claimed_blocks: int
    """Of those, of sessions whose next turn waits."""
    running: int
    waiting: int
    waiting_continuations: int
    waiting_prefill_tokens: int
    preemptions_total: int
    prefix_queries_total: int
    """Tokens, as in vLLM's metrics."""
    prefix_hits_total: int
    leases: int = 0
    next_expiry_in_s: float | None = None
    """From ``at_s``. Expiry is applied by the next step."""
    step_s: float | None = None
    """Smoothed."""
    prefill_tokens_per_s: float | None = None
    decode_tokens_per_s: float | None = None
    pinned_total: int = 0
    resumed_total: int = 0
    expired_total: int = 0
    reclaimed_total: int = 0
    rejected_total: int = 0
    clipped_total: int = 0
    evicted_total: int = 0
    passthrough: str | None = None
    """Why the patch has stepped aside; None while it works."""
    endings: tuple[LeaseEnding, ...] = ()
    last_seq: int = 0
    """Of the latest ending, sent along or not."""


class Headroom(msgspec.Struct, frozen=True):
    ranks: tuple[RankHeadroom, ...]
    protocol: int = PROTOCOL


class Hook(msgspec.Struct, frozen=True, omit_defaults=True):
    """One place of vLLM that the patch holds on to, and whether it is there."""

    name: str
    fits: bool
    detail: str = ""
    is_optional: bool = False


class Capabilities(msgspec.Struct, frozen=True):
    """Said in full: a protocol number that is left out where it is the writer's own would be taken for the
    reader's."""

    patch_version: str
    vllm_version: str
    protocol: int = PROTOCOL
    ops: tuple[KvOp, ...] = tuple(KvOp)
    async_scheduling: bool = False
    scheduling_policy: str = "fcfs"
    max_leased_share: float = 0.0
    max_ttl_s: float = 0.0
    has_host_tier: bool = False
    host_tokens_per_s: float | None = None
    """Into or out of host memory, where somebody said."""
    passthrough: str | None = None
    hooks: tuple[Hook, ...] = ()
    instance_id: str | None = None
    """By which the scheduler's file in shared memory is found."""


class SessionState(msgspec.Struct, frozen=True, omit_defaults=True):
    """What the engine knows of one branch of a session."""

    session: str
    branch: str
    turns: int
    tokens: int
    live: int
    """Requests waiting or running."""
    leased_blocks: int = 0
    resident_blocks: int | None = None
    """Cached of its last turn; None where it was not looked up."""
    mode: LeaseMode | None = None
    expires_in_ms: int | None = None
    is_claimed: bool = False

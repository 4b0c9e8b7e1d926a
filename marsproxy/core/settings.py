"""What the policy can be told, with unit, bounds and source of every default.

These are sections of the proxy's configuration tree (``marsproxy.config``) and of the simulator's: the
docstring under a field is its help text there. "Lab" in the sources is this project's simulation study
of admission policies on bootstrapped coding-agent and interactive traces (stock queueing against the
policy, several seeds).
"""

from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Annotated, get_type_hints


class ConfigError(ValueError):
    """A setting is not usable; the message is for the person who set it."""


@dataclass(frozen=True, slots=True)
class Range:
    """Allowed values of a number, both ends included."""

    low: float
    high: float | None = None

    def __contains__(self, value: float) -> bool:
        return value >= self.low and (self.high is None or value <= self.high)

    def __str__(self) -> str:
        return f"at least {self.low}" if self.high is None else f"{self.low} to {self.high}"


def check_ranges(section: object, name: str) -> None:
    """Raise ``ConfigError`` for the first number of ``section`` that its ``Range`` does not contain."""
    for key, hint in get_type_hints(type(section), include_extras=True).items():
        value = getattr(section, key)
        for allowed in getattr(hint, "__metadata__", ()):
            if isinstance(allowed, Range) and value is not None and value not in allowed:
                raise ConfigError(f"{name}.{key}: {value} is not allowed; allowed: {allowed}")


@dataclass(frozen=True, slots=True)
class AdmissionSettings:
    """When a turn may go to the engine."""

    kv_target: Annotated[float, Range(0.05, 2)] = 0.90
    """Share of a backend's KV tokens that counted sessions may be predicted to need (0.90 is one of the two
    best settings on every trace of the lab; at 1.1, without protected blocks, half of the gain is lost)."""
    kv_target_leased: Annotated[float, Range(0.05, 2)] = 1.0
    """The same on a backend that keeps counted sessions' blocks from new ones (lab: 1.0 is the robust
    middle; too optimistic a promise then stalls new sessions instead of evicting old ones)."""
    growth_beta: Annotated[float, Range(0, 1)] = 0.5
    """Share of a session's expected growth that is reserved with its context (lab: 0.5 best or within seed
    noise; 0 admits on the present context and loses four fifths of the gain)."""
    peak_prior_tokens: Annotated[int, Range(1)] = 35_000
    """Context, in tokens, that a session is expected to reach before its family has been seen (lab: median
    peaks are 38k and 55k; reserving too little costs 2 to 5 times, too much 10 to 30 %)."""
    peak_prior_pool_share: Annotated[float, Range(0.001, 1)] = 0.125
    """Upper bound of that expectation as a share of the pool: who runs agents has room for eight of them.
    A guess that the first finished sessions correct."""
    idle_gap_s: Annotated[float, Range(0, 3600)] = 120.0
    """Seconds without a sign of life in a tool gap after which a session no longer counts. Before that its
    place may go to one that waits, when keeping it is no longer worth its memory (simulated: 120 is 4 to
    8 % better than 60 on interactive and mixed traffic, where clients take a minute, and 300 is worse
    again; counting users' pauses cost a factor of four against stock)."""
    warm_share: Annotated[float, Range(0, 1)] = 0.5
    """Share of its blocks that a returning session must still have cached to go at once (lab)."""
    valve: Annotated[float, Range(0.05, 10)] = 0.95
    """Share of the pool that counted sessions really fill, from which the youngest of them pauses (lab: up
    to 8 % better where sizes are known, 2 to 5 times where predictions are bad)."""
    deadline_slack: Annotated[float, Range(0, 10_000)] = 10.0
    """A held turn's virtual deadline is its arrival and this many times its expected work, weighted by its
    size (simulated: 10 has the mean of 30 and a better p99 where all sessions are alike; on mixed traffic
    3 to 100 are within 3 %)."""
    look_ahead: Annotated[int, Range(0, 1000)] = 3
    """Turns behind a head that does not fit which may go first (lab: 3 recovers most of what the blocked
    head costs)."""
    max_overtakes: Annotated[int, Range(0, 100_000)] = 32
    """Times that one held turn may be overtaken (unbounded overtaking raised the longest session by 15 %
    in the lab; the bound itself is chosen, not measured)."""
    fallback_concurrency: Annotated[int, Range(1, 100_000)] = 8
    """Sessions per backend at once while its telemetry is unknown or stale (lab: a fixed 8 was never far
    from the best fixed number; 16 cost a factor of 2 to 7)."""
    static_cap_sessions: Annotated[int, Range(1, 100_000)] = 8
    """Sessions per backend at once under the policy ``static_cap``, and of no meaning to others (as many as
    the fixed number above; the best one differs by workload and must be searched for)."""
    telemetry_stale_s: Annotated[float, Range(0.1)] = 10.0
    """Age in seconds from which a reading is no longer believed and the fixed cap applies: ten missed
    readings at the default interval."""
    tools_per_core: Annotated[float, Range(0.1, 1000)] = 2.5
    """Tools running and queued per core of the tool hosts up to which new sessions are admitted (lab: 2 to
    3 best, 1 costs up to 5 %)."""
    tool_wait_limit_s: Annotated[float, Range(0)] = 5.0
    """Seconds that tools wait for a slot, on every host, above which no new session is admitted (simulated:
    with heavy-tailed tools that are short of slots the mean is 5 % better than without this limit, 3 % with
    10 s; elsewhere within 1 %, or noise)."""
    tool_memory_target: Annotated[float, Range(0.05, 1)] = 0.9
    """Share of the tool hosts' memory, used and foreseen, up to which new sessions are admitted (chosen, not
    measured: a tenth for what the tools of those already there will need)."""
    tool_pressure_limit: Annotated[float, Range(0.01, 1)] = 0.6
    """Share of the last ten seconds in which some tool waited for memory, above which no new session is
    admitted (chosen, not measured)."""
    max_held_turns: Annotated[int, Range(0, 1_000_000)] = 16_384
    """Turns held at once; one more is refused with 429. A held turn costs its body and a connection."""
    max_hold_s: Annotated[float, Range(0.01, 86_400)] = 570.0
    """Seconds that a turn may be held before it is refused with 503: just under the 600 s after which the
    OpenAI and Anthropic clients give up by default, so that they are told why."""
    retry_after_s: Annotated[float, Range(1, 3600)] = 5.0
    """Seconds that a refused client is told to wait (Retry-After); the official clients obey it up to 60."""

    def __post_init__(self) -> None:
        check_ranges(self, "admission")


@dataclass(frozen=True, slots=True)
class Parts:
    """Which parts of the policy work. All of them, but in a study of what each is worth."""

    gpu_budget: bool = True
    """New and cold sessions wait until their KV fits the pool."""
    cpu_budget: bool = True
    """New sessions wait while the tool hosts have no room."""
    order: bool = True
    """The queue is by virtual deadline: short work first. Else by arrival."""
    priority: bool = True
    """The engine runs continuations before new sessions."""
    retention: bool = True
    """Counted sessions keep their blocks through their gaps; others' are the first to go."""
    valve: bool = True
    """The youngest session pauses when the pool is nearly full."""
    correction: bool = True
    """The share of the pool that is promised follows what is seen."""


@dataclass(frozen=True, slots=True)
class SessionSettings:
    """Bounds of the session table. The API never says that a session is over, so every row expires."""

    max_sessions: Annotated[int, Range(1, 10_000_000)] = 20_000
    """Rows; beyond it the session idle for longest is forgotten first."""
    idle_expiry_s: Annotated[float, Range(1, 604_800)] = 3600.0
    """Seconds without a turn after which a session is forgotten. Longer than a user's pause, and than any
    cached block survives on a busy server."""

    def __post_init__(self) -> None:
        check_ranges(self, "sessions")


@dataclass(frozen=True, slots=True)
class PolicySettings:
    admission: AdmissionSettings = AdmissionSettings()
    sessions: SessionSettings = SessionSettings()
    parts: Parts = Parts()
    tenant_weights: Mapping[str, float] = field(default_factory=dict)
    """Share of each tenant against the others while they compete; 1 for those not named."""

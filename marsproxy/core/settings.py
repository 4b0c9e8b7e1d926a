"""What the policy can be told, with the source of every default.

These are sections of the proxy's configuration tree (``marsproxy.config``) and of the simulator's; the
field documentation here is what ``--help`` shows.
"""

from dataclasses import dataclass


@dataclass(frozen=True, slots=True)
class AdmissionSettings:
    """When a session may start, and how many turns may wait."""

    kv_target: float = 0.9
    """Share of a backend's KV pool to fill with the footprints of counted sessions, 0 to 1.5.

    0.9 was within noise of the best on four traces; 20 % over costs 2 to 5 times, 20 % under 10 to 30 %
    (4,500 simulated runs)."""
    growth_beta: float = 0.5
    """Part of a session's expected growth that is reserved when it starts, 0 to 1 (same runs)."""
    peak_prior_tokens: int = 35_000
    """Expected largest context of a session whose family nobody has seen end, tokens.

    About the mean of SWE-agent sessions (43k) and above the median of their last contexts (37.6k)."""
    peak_prior_pool_share: float = 0.125
    """The prior is at most this share of the pool: who runs agents at all has room for eight."""
    idle_gap_s: float = 30.0
    """A session quiet for longer gives its budget back, seconds. 10 s was harmful, 30 to 60 s were equal."""
    fallback_concurrency: int = 32
    """Sessions allowed at once on a backend whose telemetry is missing or stale."""
    telemetry_stale_s: float = 10.0
    """Readings older than this count as missing, seconds: ten missed polls at the default interval."""
    tools_per_core: float = 2.5
    """No new session while running plus queued tool commands reach this many per core (2 to 3 was best)."""
    look_ahead: int = 3
    """How many waiting turns behind one that does not fit are tried."""
    max_overtakes: int = 16
    """How often a waiting turn may be overtaken before nobody may pass it any more."""
    max_held_turns: int = 10_000
    """Turns that may wait at once; one more is refused with 429."""
    max_hold_s: float = 1800.0
    """Longest wait before a turn is refused with 503, seconds."""
    retry_after_s: float = 5.0
    """What a refusal tells the client to wait, seconds."""


@dataclass(frozen=True, slots=True)
class SessionSettings:
    """The session table: its bound and its expiry (the API never says that a session is over)."""

    max_sessions: int = 100_000
    """Sessions remembered at once; the longest idle one goes first."""
    idle_expiry_s: float = 3600.0
    """A session without a turn for this long is forgotten, seconds.

    People come back after 20 minutes at the 90th percentile (TraceLab)."""


@dataclass(frozen=True, slots=True)
class PolicySettings:
    admission: AdmissionSettings = AdmissionSettings()
    sessions: SessionSettings = SessionSettings()

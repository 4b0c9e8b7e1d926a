"""What is asked of a host's queue, what it answers, and the numbers it decides by.

Owns the vocabulary of admission and its settings; no behaviour.
"""

from collections.abc import Hashable
from dataclasses import dataclass
from enum import Enum, StrEnum

from gateway.turns import Session


@dataclass(frozen=True, slots=True)
class Ask:
    id: str
    """Of an exec or a lease."""
    session: Session
    """Tenant and session: they take turns."""
    family: Hashable | None = None
    """One for a session and all that work for it, however deep: they can use each other's slots."""
    cpu: float = 1.0
    memory_mb: float | None = None
    """Asked for, else predicted, else None."""
    expected_s: float | None = None
    """Within which it is over as a rule (``Prediction.run_p90_s``). Short ones have a lane of their own."""
    priority: int = 0
    """Of its session."""
    queue_timeout_s: float | None = None
    """How long it would wait; used only with ``refuses_hopeless``."""


class Offer(Enum):
    """Answer to an ask."""

    GRANTED = "granted"
    QUEUED = "queued"
    FULL = "full"
    """Nothing is remembered of it: it need not be ended."""


class Shortage(StrEnum):
    """What one that waits is waiting for."""

    PAUSED = "paused"
    """Its host: it is draining or gone."""
    TURN = "turn"
    CPU = "cpu"
    MEMORY = "memory"
    PRESSURE = "memory_pressure"


@dataclass(frozen=True, slots=True)
class AdmissionSettings:
    """Of one host. Memory is MB, 10^6 bytes."""

    slots: float | None = None
    """CPU slots to hand out. None: as many as the host has cores, and one until it has told."""
    queue_limit: int = 256
    """Asks that may wait, of either lane."""
    refuses_hopeless: bool = False
    """Answer FULL also to an ask that will probably wait for longer than its ``queue_timeout_s``. Off: run
    times are heavy-tailed and what is foreseen is a mean, so many of those would have started in time after
    all, and whoever is refused comes back at the end of the queue. On for callers who have somewhere else
    to go, whom the truth helps more the earlier it comes."""

    short_s: float = 1.0
    """What is expected to be over so soon is short. Seven in ten tool calls of coding agents are, and take
    under a hundredth of all tool time (TraceLab, 357,000 rounds)."""
    short_places: int | None = None
    """Commands of the short lane beyond the slots. None: one for every two slots, at least one."""
    short_memory_mb: float = 128.0
    """Set aside for each place of the lane; what is predicted to need more is not short."""

    memory_mb: float | None = None
    """Most that commands may reserve together. None: what the host has."""
    memory_headroom_ratio: float = 0.1
    """Of the host's memory that is never handed out; as much as the proxy's admission.tool_memory_target
    leaves."""
    memory_blind_ratio: float = 0.5
    """Of the memory that the host last told (or of ``memory_mb``) while it tells nothing: half, as another
    half may be in others' use."""
    memory_default_mb: float = 256.0
    """Reserved for a command of which nothing is known."""
    stale_s: float = 10.0
    """Age from which a reading is not believed: by admission, placement and whoever looks. Twice as long as
    between two of an idle host (``host_watch``); as the proxy's admission.telemetry_stale_s."""

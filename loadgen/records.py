"""What a run leaves behind, live or simulated: one JSON line per turn and per session.

Times are seconds since the start of the run. A turn or session that failed keeps its record with
``error`` set and is never counted as completed. ``None`` means not known.
"""

import msgspec


class TurnRecord(msgspec.Struct, omit_defaults=False):
    session: str
    turn: int
    """1 for the first."""
    is_continuation: bool
    due_s: float
    """When the workload wanted to send it."""
    sent_s: float
    first_token_s: float | None = None
    last_token_s: float | None = None
    prompt_tokens: int | None = None
    cached_tokens: int | None = None
    output_tokens: int | None = None
    tool: str | None = None
    tool_queue_s: float | None = None
    """Wait in the gateway before the command started."""
    tool_run_s: float | None = None
    tool_start_s: float | None = None
    """When the gap after this turn began; None for the last turn."""
    tool_end_s: float | None = None
    held_s: float | None = None
    """Time in the proxy's hold queue (``X-Mars-Held-Ms``); None from a target that is no proxy."""
    decision: str | None = None
    """``X-Mars-Decision``."""
    mars_session: str | None = None
    """``X-Mars-Session``: the session the proxy took it for."""
    status: int | None = None
    retries: int = 0
    loop_lag_s: float = 0.0
    """Largest delay of the driver's own event loop while the turn was in flight."""
    error: str | None = None

    @property
    def ttft_s(self) -> float | None:
        """From sending to the first token, holds included."""
        return None if self.first_token_s is None else self.first_token_s - self.sent_s


class SessionRecord(msgspec.Struct, omit_defaults=False):
    session: str
    arrival_s: float
    """When the workload wanted it to start; in a closed loop, when an agent took it up."""
    end_s: float | None = None
    """Last byte of the last turn; None if it never got there."""
    turns_planned: int = 0
    turns_completed: int = 0
    tenant: str | None = None
    prompt_tokens: int = 0
    """Sum over turns."""
    cached_tokens: int = 0
    output_tokens: int = 0
    ideal_s: float | None = None
    """JCT of the same session alone on the same server, where known: the yardstick of goodput."""
    error: str | None = None

    @property
    def is_completed(self) -> bool:
        return self.error is None and self.end_s is not None

    @property
    def jct_s(self) -> float | None:
        """Job completion time: first arrival to last byte."""
        return None if self.end_s is None else self.end_s - self.arrival_s


class GaugeSample(msgspec.Struct, omit_defaults=False):
    """State of server and proxy at one moment, one line of ``gauges.jsonl``."""

    at_s: float
    kv_used_ratio: float | None = None
    running: int | None = None
    waiting: int | None = None
    held_sessions: int | None = None
    tools_running: int | None = None
    tools_queued: int | None = None

"""One generation as the scheduler sees it: how many tokens, which prefix hashes, how far it got.

What the tokens say is none of its business. Both clocks and the HTTP face share this type.
"""

from collections.abc import Sequence
from dataclasses import dataclass, field
from enum import Enum


class Phase(Enum):
    WAITING = "waiting"
    RUNNING = "running"
    FINISHED = "finished"
    ABORTED = "aborted"


@dataclass(slots=True, eq=False)
class EngineRequest:
    request_id: str
    prompt_tokens: int
    output_tokens: int
    """Tokens it will generate before it ends; known up front because the answer is."""
    block_hashes: Sequence[int]
    """Prefix hash of each full block of prompt and answer together. A longer sequence may be shared
    between the turns of a session: only as many as prompt and answer fill are read."""
    priority: int = 0
    """Lower runs earlier; ignored by fcfs."""
    arrival_s: float = 0.0
    finish_reason: str = "stop"
    """What its end will be called in the metrics: the answer is known, so is why it ends."""

    phase: Phase = Phase.WAITING
    computed_tokens: int = 0
    generated_tokens: int = 0
    blocks: list[int] = field(default_factory=list)
    registered_blocks: int = 0
    """Of ``blocks``, how many from the head are in the prefix cache."""
    cached_tokens: int | None = None
    """Prompt tokens found in the cache when first scheduled; None before."""
    preemptions: int = 0
    queued_number: int = 0
    """Order of arrival, the last tie-break of the priority policy."""
    scheduled_s: float | None = None
    first_token_s: float | None = None

    @property
    def known_tokens(self) -> int:
        """Prompt and what was generated so far."""
        return self.prompt_tokens + self.generated_tokens

    @property
    def is_over(self) -> bool:
        return self.phase is Phase.FINISHED or self.phase is Phase.ABORTED

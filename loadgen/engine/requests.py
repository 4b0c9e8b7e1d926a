"""One generation as the scheduler sees it: how many tokens, which prefix hashes, how far it got.

What the tokens say is none of its business. Both clocks and the HTTP face share this type.
"""

from collections.abc import Sequence
from dataclasses import dataclass, field
from enum import Enum
from typing import ClassVar

from loadgen.engine.extents import Extent
from marsproxy.core.commands import KvLease


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
    block_hashes: Sequence[int] = ()
    """For a block store: prefix hash of each full block of prompt and answer together. A longer sequence may
    be shared between the turns of a session: only as many as prompt and answer fill are read."""
    priority: int = 0
    """Lower runs earlier; ignored by fcfs."""
    arrival_s: float = 0.0
    finish_reason: str = "stop"
    """What its end will be called in the metrics: the answer is known, so is why it ends."""

    chain: str | None = None
    """For a chain store: the name of the text that prompt and answer are the beginning of."""
    shared_chain: str | None = None
    """The text that others begin with, too: a system prompt."""
    shared_tokens: int = 0
    """Its length; only its full blocks are shared."""
    may_break_leases: bool = True
    """Whether its prefill may take what is kept for sessions that will return, while anything else runs."""

    lease: KvLease | None = None
    """For a chain store: keep what it leaves, once it has finished."""

    phase: Phase = Phase.WAITING
    computed_tokens: int = 0
    generated_tokens: int = 0
    blocks: list[int] = field(default_factory=list)
    """What it holds in a block store."""
    is_lease: ClassVar[bool] = False
    extents: list[Extent] = field(default_factory=list)
    """What it holds in a chain store, but for blocks that are not full."""
    held_blocks: int = 0
    registered_blocks: int = 0
    """Of those, how many from the head are in the prefix cache."""
    settled_tokens: int = 0
    """Up to here it may compute without asking the store for a block or filling one up."""
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

    def settle(self, tokens: int, block_tokens: int) -> None:
        """The store has seen to that many tokens: the last block they begin has room for others."""
        full, rest = divmod(tokens, block_tokens)
        self.settled_tokens = (full + 1) * block_tokens - 1 if rest else tokens

    def let_go(self) -> None:
        """The store took everything back."""
        self.extents = []
        self.held_blocks = self.registered_blocks = self.settled_tokens = 0

    @property
    def is_over(self) -> bool:
        return self.phase is Phase.FINISHED or self.phase is Phase.ABORTED

"""What every format is read into: the calls of one agent to its model, with sizes and times.

A call that failed, or whose answer was thrown away, is no call here: readers count it in ``Notes``.
Times are seconds since 1970; None is not known.
"""

from collections import Counter
from collections.abc import Iterable
from dataclasses import dataclass, field
from enum import Enum

from loadgen.errors import WorkloadError
from loadgen.importers.counting import TokenCounter

OTHER_TOOL = "other"
"""For tools that a framework does not ship: their names are their users' words."""


class Waits(Enum):
    """Whom a tool call waits for, other than a command."""

    NOBODY = "nobody"
    AGENT = "agent"
    """A sub-agent or a far server: no CPU time of this host's."""
    USER = "user"
    """It asks a question: a pause of the user's."""


@dataclass(slots=True)
class ToolUse:
    name: str
    started_at: float | None = None
    ended_at: float | None = None
    duration_s: float | None = None
    """As the transcript itself says; else it follows from the times."""
    waits: Waits = Waits.NOBODY
    command: str | None = None


@dataclass(slots=True)
class Call:
    """One answer of the model, and what came before it."""

    added_tokens: int = 0
    """Counted from the text that the prompt has beyond the call before; only if nothing is recorded."""
    answer_tokens: int = 0
    """The same of the answer."""
    prompt_tokens: int | None = None
    """As recorded: the whole prompt, cached part included."""
    output_tokens: int | None = None
    answered_at: float | None = None
    asked_at: float | None = None
    """When the latest of what the prompt adds was written."""
    prompted_at: float | None = None
    """When a user wrote, if one did since the call before."""
    tools: list[ToolUse] = field(default_factory=list)
    is_rewritten: bool = False
    """The history before it was condensed, so its prompt does not continue the one before."""


@dataclass(slots=True)
class Transcript:
    source: str
    key: str
    """Names the agent among those of its source; only a digest of it is kept."""
    calls: list[Call] = field(default_factory=list)
    parent_key: str | None = None
    """Of the agent that started this one."""


@dataclass(slots=True)
class Notes:
    """What was noticed on the way; for the summary."""

    broken: list[WorkloadError] = field(default_factory=list)
    """Lines and files that were passed over, located."""
    counts: Counter[str] = field(default_factory=Counter)


@dataclass(slots=True)
class Reading:
    """What readers share over all files of an import."""

    counter: TokenCounter
    keep_text: bool = False
    notes: Notes = field(default_factory=Notes)
    seen: set[str] = field(default_factory=set)
    """Ids of answers that were read: a resumed session's file repeats those of the first."""

    def tool_name(self, name: str, shipped: frozenset[str]) -> str:
        return (name or OTHER_TOOL) if self.keep_text or name in shipped else OTHER_TOOL

    def command(self, text: object) -> str | None:
        return text if self.keep_text and isinstance(text, str) and text else None

    def count(self, what: str, number: int = 1) -> None:
        self.notes.counts[what] += number

    def count_all(self, texts: Iterable[object]) -> int:
        return sum(self.counter.count_in(text) for text in texts)

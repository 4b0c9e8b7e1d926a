"""Changes to a whole workload: shorter, lighter, faster, bounded. Applied the same to files and profiles."""

from dataclasses import dataclass

import msgspec

from loadgen.errors import LoadgenError
from loadgen.workload import Session, Turn


@dataclass(frozen=True, slots=True)
class Modifiers:
    max_turns: int | None = None
    scale_tokens: float = 1.0
    """Factor on every token count; the shared system prompt included."""
    scale_gaps: float = 1.0
    """Factor on tool durations and user pauses."""
    max_context_tokens: int | None = None
    """A session ends before the turn that would pass it."""
    max_gap_s: float | None = None
    """Longest tool call and longest user pause, after ``scale_gaps``."""

    def check(self) -> None:
        if self.max_turns is not None and self.max_turns < 1:
            raise LoadgenError(f"--max-turns is {self.max_turns}; allowed: 1 or more")
        if self.scale_tokens <= 0:
            raise LoadgenError(f"--scale-tokens is {self.scale_tokens}; allowed: more than 0")
        if self.scale_gaps < 0:
            raise LoadgenError(f"--scale-gaps is {self.scale_gaps}; allowed: 0 or more")
        if self.max_context_tokens is not None and self.max_context_tokens < 2:
            raise LoadgenError(f"--max-context-tokens is {self.max_context_tokens}; allowed: 2 or more")
        if self.max_gap_s is not None and self.max_gap_s < 0:
            raise LoadgenError(f"--max-gap-s is {self.max_gap_s}; allowed: 0 or more")

    def can_begin(self, session: Session) -> bool:
        """Its first turn fits; a session that cannot begin is better left out than cut to one turn."""
        first = self.scale(session.turns[0])
        context = round(session.system_tokens * self.scale_tokens) + first.new_tokens + first.output_tokens
        return self.max_context_tokens is None or context <= self.max_context_tokens

    def apply(self, session: Session) -> Session:
        turns = [self.scale(turn) for turn in session.turns[: self.max_turns]]
        system_tokens = round(session.system_tokens * self.scale_tokens)
        turns = self.fitting(turns, system_tokens)
        # Nothing follows the last turn, so neither does a gap.
        turns[-1] = Turn(turns[-1].new_tokens, turns[-1].output_tokens)
        return msgspec.structs.replace(session, turns=turns, system_tokens=system_tokens)

    def scale(self, turn: Turn) -> Turn:
        tool = turn.tool
        if tool is not None:
            tool = msgspec.structs.replace(tool, duration_s=self.gap_s(tool.traced_s))
        return Turn(
            new_tokens=max(1, round(turn.new_tokens * self.scale_tokens)),
            output_tokens=max(1, round(turn.output_tokens * self.scale_tokens)),
            tool=tool,
            think_s=None if turn.think_s is None else self.gap_s(turn.think_s),
        )

    def gap_s(self, traced_s: float) -> float:
        gap_s = traced_s * self.scale_gaps
        return gap_s if self.max_gap_s is None else min(gap_s, self.max_gap_s)

    def fitting(self, turns: list[Turn], context: int) -> list[Turn]:
        if self.max_context_tokens is None:
            return turns
        kept: list[Turn] = []
        for turn in turns:
            context += turn.new_tokens + turn.output_tokens
            if kept and context > self.max_context_tokens:
                break
            kept.append(turn)
        return kept

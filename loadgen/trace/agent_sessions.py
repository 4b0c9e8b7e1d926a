"""Traces of whole agent runs, one session a line, with the length and gap of every call.

Schema: ``{id, src, lic, model, conc?, turns: [{in, out, new, llm_s, tools: [[name, seconds]], gap_s,
gap}]}``. The history of such a session may have been rewritten on the way (compaction); ours is
append-only, so a turn adds what the trace's prompt grew by, and where it shrank, what the trace
calls new.
"""

import msgspec

from loadgen.errors import FieldError
from loadgen.trace.own import check_at_least, check_session
from loadgen.workload import Session, ToolCall, Turn

TOOL_CORES = 1.0
"""The schema has no CPU weight; a command that is busy all its time is the cautious reading."""


class TracedTurn(msgspec.Struct, frozen=True):
    prompt_tokens: int = msgspec.field(name="in")
    out: int
    new: int | None = None
    tools: list[tuple[str, float]] = []
    gap_s: float | None = None
    gap: str | None = None


class TracedSession(msgspec.Struct, frozen=True):
    id: str
    turns: list[TracedTurn]
    src: str | None = None


def parse_session(line: bytes) -> Session:
    traced = msgspec.json.decode(line, type=TracedSession)
    for i, turn in enumerate(traced.turns):
        check_at_least(f"turns[{i}].in", turn.prompt_tokens, 1)
        check_at_least(f"turns[{i}].out", turn.out, 0)
        check_at_least(f"turns[{i}].gap_s", turn.gap_s, 0)
        if any(seconds < 0 for _, seconds in turn.tools):
            raise FieldError(f"turns[{i}].tools", "has a negative duration; allowed: seconds >= 0")
    session = Session(
        id=traced.id,
        turns=[
            convert_turn(turn, traced.turns[i - 1] if i else None, is_last=i == len(traced.turns) - 1)
            for i, turn in enumerate(traced.turns)
        ],
    )
    check_session(session)
    return session


def convert_turn(turn: TracedTurn, before: TracedTurn | None, *, is_last: bool) -> Turn:
    tool = None if is_last else tool_of(turn)
    pause_s = None if is_last or tool is not None else turn.gap_s
    # No answer is an aborted call: as short as one can be.
    output_tokens = max(1, turn.out)
    return Turn(new_tokens=grown_by(turn, before), output_tokens=output_tokens, tool=tool, think_s=pause_s)


def grown_by(turn: TracedTurn, before: TracedTurn | None) -> int:
    if before is None:
        return turn.prompt_tokens
    growth = turn.prompt_tokens - before.prompt_tokens - before.out
    return growth if growth > 0 else max(1, (turn.new or 0) - before.out)


def tool_of(turn: TracedTurn) -> ToolCall | None:
    """The calls of one turn run one after the other; a gap of a tool without times is its own length."""
    if turn.tools:
        return ToolCall(
            name=turn.tools[0][0], duration_s=sum(seconds for _, seconds in turn.tools), cores=TOOL_CORES
        )
    if turn.gap in ("tool", "client") and turn.gap_s is not None:
        # Client time holds approvals and waits beside the command, so it is not CPU time.
        return ToolCall(name=turn.gap, duration_s=turn.gap_s, cores=0.0)
    return None

"""A transcript as sessions of the workload form.

Our histories are append-only. So the context that a replay will have is carried along, and a turn adds
what its recorded prompt has beyond that: answers whose reasoning the next prompt leaves out do not add
up to an error. Where a history was rewritten, a session ends and another begins.
"""

import xxhash

from loadgen.importers.transcript import Call, Notes, ToolUse, Transcript, Waits
from loadgen.workload import Session, ToolCall, Turn

KEPT_RATIO = 0.8
"""A recorded prompt below this share of the context was rewritten, marked or not. Chosen: reasoning that
is left out again takes less, summaries and cleared tool results take more."""


def session_id(source: str, key: str) -> str:
    """The same for the same transcript in every import, and without a word of it."""
    return f"{source}-{xxhash.xxh64_hexdigest(f'{source}/{key}'.encode())[:12]}"


def to_sessions(transcript: Transcript, counted_by: str, notes: Notes) -> list[Session]:
    """One, and one more for every rewritten history. None of a transcript without calls."""
    first_id = session_id(transcript.source, transcript.key)
    parent_key = transcript.parent_key
    made: list[Session] = []
    for number, calls in enumerate(unbroken(transcript.calls), start=1):
        made.append(
            Session(
                id=first_id if number == 1 else f"{first_id}.{number}",
                turns=turns_of(calls, notes),
                arrival_s=calls[0].asked_at,
                source=transcript.source,
                parent=None if parent_key is None else session_id(transcript.source, parent_key),
                tokens_by=tokens_by(calls, counted_by),
            )
        )
    notes.counts["compactions"] += max(0, len(made) - 1)
    return made


def unbroken(calls: list[Call]) -> list[list[Call]]:
    """Runs of calls each of whose prompts continues the one before."""
    runs: list[list[Call]] = []
    context = 0
    for call in calls:
        if not runs or call.is_rewritten or is_shrunk(call, context):
            runs.append([])
            context = 0
        runs[-1].append(call)
        context += sum(sizes(call, context))
    return runs


def is_shrunk(call: Call, context: int) -> bool:
    return call.prompt_tokens is not None and call.prompt_tokens < KEPT_RATIO * context


def sizes(call: Call, context: int) -> tuple[int, int]:
    """New and output tokens of a call behind so much context."""
    added = call.added_tokens if call.prompt_tokens is None else call.prompt_tokens - context
    output = call.answer_tokens if call.output_tokens is None else call.output_tokens
    return max(1, added), max(1, output)


def turns_of(calls: list[Call], notes: Notes) -> list[Turn]:
    turns, context = [], 0
    for i, call in enumerate(calls):
        after = calls[i + 1] if i + 1 < len(calls) else None
        new_tokens, output_tokens = sizes(call, context)
        context += new_tokens + output_tokens
        # Nothing follows the last turn, so neither does a gap.
        tool, think_s = (None, None) if after is None else gap_of(call, after, notes)
        turns.append(Turn(new_tokens, output_tokens, tool=tool, think_s=think_s))
    return turns


def gap_of(call: Call, after: Call, notes: Notes) -> tuple[ToolCall | None, float | None]:
    """The tool and the pause between two calls."""
    tools = [tool for tool in call.tools if tool.waits is not Waits.USER]
    questions = [tool for tool in call.tools if tool.waits is Waits.USER]
    busy_s = run_s(tools, call.answered_at, notes)
    tool = tool_call(tools, busy_s) if tools else None
    free_at = None if call.answered_at is None else call.answered_at + (busy_s or 0.0)
    heard_at = after.prompted_at
    if heard_at is None and questions:
        heard_at = max((each.ended_at for each in questions if each.ended_at is not None), default=None)
    if tools and busy_s is None:
        return tool, None
    return tool, between(free_at, heard_at, notes)


def run_s(tools: list[ToolUse], answered_at: float | None, notes: Notes) -> float | None:
    """From the answer to the last result: calls of one answer may run side by side."""
    if tools and all(tool.duration_s is not None for tool in tools):
        return sum(tool.duration_s or 0.0 for tool in tools)
    spans = [(tool.started_at or answered_at, tool.ended_at) for tool in tools]
    known = [(start, end) for start, end in spans if start is not None and end is not None]
    if not known or len(known) < len(spans) or answered_at is None:
        return None
    if any(end < start for start, end in known):
        notes.counts["times that go back"] += 1
        return None
    # A tool may have ended while the model still wrote the answer's next part.
    return max(0.0, max(end for _, end in known) - answered_at)


def between(start: float | None, end: float | None, notes: Notes) -> float | None:
    if start is None or end is None:
        return None
    if end < start:
        notes.counts["times that go back"] += 1
        return None
    return end - start


def tool_call(tools: list[ToolUse], duration_s: float | None) -> ToolCall:
    commands = [tool.command for tool in tools if tool.command]
    is_waiting = all(tool.waits is Waits.AGENT for tool in tools)
    return ToolCall(
        name=tools[0].name,
        duration_s=None if duration_s is None else round(duration_s, 6),
        cores=0.0 if is_waiting else 1.0,
        command="\n".join(commands) or None,
    )


def tokens_by(calls: list[Call], counted_by: str) -> str:
    found = {
        "usage" if call.prompt_tokens is not None and call.output_tokens is not None else counted_by
        for call in calls
    }
    return found.pop() if len(found) == 1 else "mixed"

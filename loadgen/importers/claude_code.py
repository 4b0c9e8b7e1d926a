"""Claude Code: ``~/.claude/projects/<project>/<session>.jsonl``, one entry a line.

An answer is written as several entries, one per content block, with one ``message.id``; they are joined. The
prompt's usage is right in all of them. ``output_tokens`` is a snapshot of the stream until an entry has a
``stop_reason``, which in many versions none has: then it may be as small as 1, and the text, if it counts
for more, is believed. Sub-agents are side chains: in files of their own
(``agent-<id>.jsonl``, ``<session>/subagents/``) or, in older versions, between the lines of their parent's.
A resumed session's file may repeat the entries of the first, so answers are known by their ids.
Compaction is marked by a ``compact_boundary`` entry and by the summary that follows. A file does not hold
the system prompt, nor the small model's side calls (titles and the like).
"""

from collections.abc import Iterator
from dataclasses import dataclass, field
from pathlib import Path

from loadgen.importers.files import records
from loadgen.importers.transcript import Call, Reading, ToolUse, Transcript, Waits
from loadgen.importers.values import Fields, count, fields, items, latest, moment, text

SOURCE = "claude-code"
SHIPPED_TOOLS = frozenset(
    {
        "Agent", "AskUserQuestion", "Bash", "BashOutput", "Edit", "EnterPlanMode", "ExitPlanMode",
        "Glob", "Grep", "KillBash", "KillShell", "LS", "MultiEdit", "NotebookEdit", "NotebookRead",
        "Read", "Skill", "SlashCommand", "Task", "TaskOutput", "TaskStop", "TodoRead", "TodoWrite",
        "ToolSearch", "WebFetch", "WebSearch", "Write",
    }
)  # fmt: skip
WAITS = dict.fromkeys(("Agent", "Task", "TaskOutput", "WebFetch", "WebSearch"), Waits.AGENT) | dict.fromkeys(
    ("AskUserQuestion", "ExitPlanMode"), Waits.USER
)
SYNTHETIC_MODEL = "<synthetic>"
"""Of messages that Claude Code itself wrote in the model's place: errors, interruptions."""


def is_record(found: Fields) -> bool:
    is_entry = text(found.get("sessionId")) is not None and found.get("type") in (
        "user",
        "assistant",
        "system",
    )
    return is_entry and ("message" in found or "uuid" in found)


@dataclass(slots=True)
class Thread:
    """One agent: the session itself, or a side chain of it."""

    transcript: Transcript
    answer_id: str | None = None
    """Of the last call; entries with the same belong to it."""
    uses: dict[str, ToolUse] = field(default_factory=dict)
    next: Call = field(default_factory=Call)
    """What is known of the call that comes next."""


def read(path: Path, reading: Reading) -> list[Transcript]:
    threads: dict[str | None, Thread] = {}
    chains: dict[str, str] = {}
    """Which side chain an entry belongs to, by the entry's id; where the entry does not say."""
    for entry in records(path, reading.notes):
        key = chain_of(entry, chains)
        if key not in threads:
            threads[key] = Thread(new_transcript(path, entry, key))
        add(entry, threads[key], reading)
    return [thread.transcript for thread in threads.values()]


def new_transcript(path: Path, entry: Fields, chain: str | None) -> Transcript:
    session = text(entry.get("sessionId")) or path.stem
    if chain is None:
        return Transcript(SOURCE, path.stem)
    return Transcript(SOURCE, f"{session}/{chain}", parent_key=session)


def chain_of(entry: Fields, chains: dict[str, str]) -> str | None:
    if entry.get("isSidechain") is not True:
        return None
    own, parent = text(entry.get("uuid")), text(entry.get("parentUuid"))
    chain = text(entry.get("agentId")) or chains.get(parent or "") or own or "side"
    if own is not None:
        chains[own] = chain
    return chain


def add(entry: Fields, thread: Thread, reading: Reading) -> None:
    kind, subtype = entry.get("type"), entry.get("subtype")
    if kind == "assistant":
        add_answer(entry, thread, reading)
    elif kind == "user":
        add_input(entry, thread, reading)
    elif kind == "system" and subtype == "compact_boundary":
        thread.next.is_rewritten = bool(thread.transcript.calls)
    elif kind == "system" and subtype == "api_error":
        reading.count("failed calls")


def add_answer(entry: Fields, thread: Thread, reading: Reading) -> None:
    message = fields(entry.get("message"))
    if entry.get("isApiErrorMessage") is True or message.get("model") == SYNTHETIC_MODEL:
        reading.count("failed calls")
        return
    answer_id = text(message.get("id")) or text(entry.get("requestId")) or text(entry.get("uuid"))
    if answer_id is None or answer_id != thread.answer_id:
        if answer_id is not None and answer_id in reading.seen:
            reading.count("repeated answers")
            thread.next = Call()
            return
        start_call(thread, answer_id, reading)
    call = thread.transcript.calls[-1]
    at = moment(entry.get("timestamp"))
    call.answered_at = latest(call.answered_at, at)
    for block in blocks(message):
        call.answer_tokens += reading.counter.count_in(block.get("input", block))
        if block.get("type") == "tool_use":
            call.tools.append(tool_use(block, at, thread, reading))
    record_usage(call, fields(message.get("usage")), is_final=text(message.get("stop_reason")) is not None)


def start_call(thread: Thread, answer_id: str | None, reading: Reading) -> None:
    thread.transcript.calls.append(thread.next)
    thread.next, thread.answer_id = Call(), answer_id
    if answer_id is not None:
        reading.seen.add(answer_id)


def record_usage(call: Call, usage: Fields, *, is_final: bool) -> None:
    parts = ("input_tokens", "cache_creation_input_tokens", "cache_read_input_tokens")
    prompt = sum(count(usage.get(part)) or 0 for part in parts)
    call.prompt_tokens = prompt or call.prompt_tokens
    output = max(call.output_tokens or 0, count(usage.get("output_tokens")) or 0)
    call.output_tokens = output if is_final or output >= call.answer_tokens else None


def tool_use(block: Fields, at: float | None, thread: Thread, reading: Reading) -> ToolUse:
    name = text(block.get("name")) or ""
    use = ToolUse(
        reading.tool_name(name, SHIPPED_TOOLS),
        started_at=at,
        waits=WAITS.get(name, Waits.NOBODY),
        command=reading.command(fields(block.get("input")).get("command")),
    )
    if (use_id := text(block.get("id"))) is not None:
        thread.uses[use_id] = use
    return use


def add_input(entry: Fields, thread: Thread, reading: Reading) -> None:
    at = moment(entry.get("timestamp"))
    message = fields(entry.get("message"))
    results = [block for block in blocks(message) if block.get("type") == "tool_result"]
    for result in results:
        if (use := thread.uses.pop(text(result.get("tool_use_id")) or "", None)) is not None:
            use.ended_at = at
    if entry.get("isCompactSummary") is True:
        thread.next.is_rewritten = bool(thread.transcript.calls)
    elif not results and entry.get("isMeta") is not True and entry.get("isSidechain") is not True:
        thread.next.prompted_at = latest(at)
    thread.next.asked_at = latest(thread.next.asked_at, at)
    thread.next.added_tokens += reading.counter.count_in(message.get("content"))


def blocks(message: Fields) -> Iterator[Fields]:
    content = message.get("content")
    if isinstance(content, str):
        yield {"type": "text", "text": content}
    for block in items(content):
        yield fields(block)

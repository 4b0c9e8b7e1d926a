"""Codex: ``~/.codex/sessions/**/rollout-*.jsonl``, one item a line: ``{timestamp, type, payload}``.

An answer is a run of items that the model wrote. Its usage is in a ``token_usage_record`` (0.169) or a
``token_count`` event, which older versions write after the tool's output, and repeat when only the rate
limits have changed: then its total has not grown. How long a command took is in an ``item_completed``
event where there is one (0.169), else from the call to its output. Sub-agents have rollouts of their own,
which name their parent; like every fork, such a rollout begins with a copy of the other's lines, all stamped
with the moment of the fork. The oldest files (before September 2025) have bare items without times and usage.
"""

import shlex
from dataclasses import dataclass, field
from itertools import dropwhile
from pathlib import Path

from loadgen.importers.files import as_object, records
from loadgen.importers.transcript import Call, Reading, ToolUse, Transcript, Waits
from loadgen.importers.values import Fields, count, fields, latest, moment, text

SOURCE = "codex"
SHIPPED_TOOLS = frozenset(
    {
        "apply_patch", "close_agent", "exec_command", "list_dir", "local_shell", "read_file",
        "request_user_input", "resume_agent", "send_input", "shell", "shell_command", "spawn_agent",
        "unified_exec", "update_plan", "view_image", "wait", "wait_agent", "write_stdin",
    }
)  # fmt: skip
WAITS = dict.fromkeys(("wait", "wait_agent"), Waits.AGENT) | {"request_user_input": Waits.USER}
CALLS = frozenset({"function_call", "custom_tool_call", "local_shell_call"})
ANSWERS = CALLS | {"reasoning", "web_search_call", "image_generation_call", "tool_search_call"}
RESULTS = frozenset({"function_call_output", "custom_tool_call_output", "local_shell_call_output"})
LINE_TYPES = frozenset({"session_meta", "response_item", "event_msg", "turn_context", "compacted"})
MS_PER_S = 1000
COPIED_WITHIN_S = 1.0
"""A fork's copy is written in one go, and its first own answer takes a model's time."""


def is_record(found: Fields) -> bool:
    if isinstance(found.get("payload"), dict):
        return text(found.get("type")) in LINE_TYPES
    return {"id", "timestamp", "instructions"} <= found.keys()


@dataclass(slots=True)
class Rollout:
    transcript: Transcript
    next: Call = field(default_factory=Call)
    open: Call | None = None
    """The answer that is being written: it ends where something else than its items comes."""
    uses: dict[str, ToolUse] = field(default_factory=dict)
    unplaced: Fields | None = None
    """Usage that came before its answer."""
    counted: set[int] = field(default_factory=set)
    """Answers, by place, whose usage is known."""
    total_tokens: int | None = None
    has_usage_records: bool = False
    metas: int = 0
    """A second one is of what this was forked from."""
    is_fork: bool = False
    began_at: float | None = None


def read(path: Path, reading: Reading) -> list[Transcript]:
    rollout = Rollout(Transcript(SOURCE, path.name.split(".jsonl")[0]))
    for line in records(path, reading.notes):
        payload = line.get("payload")
        at = moment(line.get("timestamp")) if payload is not None else None
        rollout.began_at = at if rollout.began_at is None else rollout.began_at
        add(line, fields(payload) if payload is not None else line, at, rollout, reading)
    if rollout.is_fork:
        leave_out_copies(rollout, reading)
    return [rollout.transcript]


def leave_out_copies(rollout: Rollout, reading: Reading) -> None:
    calls = rollout.transcript.calls
    own = list(dropwhile(lambda call: is_copy(call, rollout.began_at), calls))
    reading.count("repeated answers", len(calls) - len(own))
    rollout.transcript.calls = own


def is_copy(call: Call, began_at: float | None) -> bool:
    if call.answered_at is None or began_at is None:
        return False
    return call.answered_at - began_at < COPIED_WITHIN_S


def add(line: Fields, payload: Fields, at: float | None, rollout: Rollout, reading: Reading) -> None:
    match line.get("type"):
        case "session_meta":
            add_meta(payload, rollout)
        case "event_msg":
            add_event(payload, at, rollout, reading)
        case "token_usage_record":
            rollout.has_usage_records = True
            add_usage(fields(payload.get("usage")), at, rollout)
        case "compacted":
            rewrite(rollout)
        case _:
            add_item(payload, at, rollout, reading)


def add_meta(payload: Fields, rollout: Rollout) -> None:
    """Only the first is the file's own."""
    rollout.metas += 1
    rollout.is_fork = rollout.metas > 1 or text(payload.get("forked_from_id")) is not None
    if rollout.metas > 1:
        return
    rollout.transcript.key = text(payload.get("id")) or rollout.transcript.key
    spawned = fields(fields(fields(payload.get("source")).get("subagent")).get("thread_spawn"))
    parent = spawned.get("parent_thread_id") or payload.get("parent_thread_id")
    rollout.transcript.parent_key = text(parent)


def add_event(payload: Fields, at: float | None, rollout: Rollout, reading: Reading) -> None:
    match payload.get("type"):
        case "token_count" if not rollout.has_usage_records:
            add_count(fields(payload.get("info")), at, rollout)
        case "user_message":
            rollout.next.prompted_at = latest(at)
        case "item_completed":
            add_completed(payload, rollout)
        case "context_compacted":
            rewrite(rollout)
        case "error" | "stream_error":
            reading.count("failed calls")


def add_completed(payload: Fields, rollout: Rollout) -> None:
    item = fields(payload.get("item"))
    started_ms, ended_ms = count(payload.get("started_at_ms")), count(payload.get("completed_at_ms"))
    if item.get("type") == "UserMessage" and ended_ms is not None:
        rollout.next.prompted_at = ended_ms / MS_PER_S
    use = rollout.uses.get(text(item.get("id")) or "")
    if use is not None and started_ms is not None and ended_ms is not None:
        use.started_at, use.ended_at = started_ms / MS_PER_S, ended_ms / MS_PER_S


def add_count(info: Fields, at: float | None, rollout: Rollout) -> None:
    total = count(fields(info.get("total_token_usage")).get("total_tokens"))
    if total is not None and total != rollout.total_tokens:
        rollout.total_tokens = total
        add_usage(fields(info.get("last_token_usage")), at, rollout)


def add_usage(usage: Fields, at: float | None, rollout: Rollout) -> None:
    calls = rollout.transcript.calls
    if calls and len(calls) - 1 not in rollout.counted:
        record_usage(calls[-1], usage)
        rollout.counted.add(len(calls) - 1)
        if rollout.open is not None:
            calls[-1].answered_at = latest(calls[-1].answered_at, at)
    else:
        rollout.unplaced = usage
    rollout.open = None


def record_usage(call: Call, usage: Fields) -> None:
    call.prompt_tokens, call.output_tokens = (
        count(usage.get("input_tokens")),
        count(usage.get("output_tokens")),
    )


def rewrite(rollout: Rollout) -> None:
    rollout.open = None
    rollout.next.is_rewritten = bool(rollout.transcript.calls)


def add_item(item: Fields, at: float | None, rollout: Rollout, reading: Reading) -> None:
    kind = text(item.get("type"))
    if kind in ANSWERS or (kind == "message" and item.get("role") == "assistant"):
        add_answer(item, at, rollout, reading)
    elif kind in RESULTS or kind == "message":
        add_input(item, at, rollout, reading)


def add_answer(item: Fields, at: float | None, rollout: Rollout, reading: Reading) -> None:
    call = rollout.open if rollout.open is not None else start_call(rollout)
    call.answered_at = latest(call.answered_at, at)
    call.answer_tokens += reading.count_all(
        item.get(name) for name in ("content", "arguments", "input", "action")
    )
    if text(item.get("type")) in CALLS:
        call.tools.append(tool_use(item, at, rollout, reading))


def start_call(rollout: Rollout) -> Call:
    call = rollout.next
    rollout.transcript.calls.append(call)
    rollout.open, rollout.next = call, Call()
    if rollout.unplaced is not None:
        record_usage(call, rollout.unplaced)
        rollout.counted.add(len(rollout.transcript.calls) - 1)
        rollout.unplaced = None
    return call


def tool_use(item: Fields, at: float | None, rollout: Rollout, reading: Reading) -> ToolUse:
    name = text(item.get("name")) or ("local_shell" if item.get("type") == "local_shell_call" else "")
    use = ToolUse(
        reading.tool_name(name, SHIPPED_TOOLS),
        started_at=at,
        waits=WAITS.get(name, Waits.NOBODY),
        command=reading.command(command_in(item)),
    )
    if (call_id := text(item.get("call_id")) or text(item.get("id"))) is not None:
        rollout.uses[call_id] = use
    return use


def command_in(item: Fields) -> str | None:
    """The shell command among a call's arguments, which are JSON in a string."""
    arguments = as_object((text(item.get("arguments")) or "").encode()) or {}
    found = arguments.get("cmd") or arguments.get("command") or fields(item.get("action")).get("command")
    return (
        shlex.join(found)
        if isinstance(found, list) and all(isinstance(w, str) for w in found)
        else text(found)
    )


def add_input(item: Fields, at: float | None, rollout: Rollout, reading: Reading) -> None:
    rollout.open = None
    use = rollout.uses.get(text(item.get("call_id")) or "")
    if use is not None and use.ended_at is None:
        use.ended_at = at
    rollout.next.asked_at = latest(rollout.next.asked_at, at)
    rollout.next.added_tokens += reading.count_all(item.get(name) for name in ("content", "output"))

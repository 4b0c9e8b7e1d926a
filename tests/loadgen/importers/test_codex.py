"""Codex: usage finds its answer wherever a version writes it; a command's own times are preferred."""

import json
from pathlib import Path
from typing import Any

from loadgen.importers import codex
from loadgen.importers.transcript import Reading
from loadgen.workload import Session, ToolCall, Turn
from tests.loadgen.importers.samples import (
    codex_call,
    codex_count,
    codex_item,
    codex_line,
    codex_message,
    codex_output,
    codex_rollout,
    codex_usage,
    lines,
    new_reading,
    sessions_of,
    words,
)

META = codex_line(0, "session_meta", id="root")


def read(path: Path, items: list[dict[str, Any]], reading: Reading | None = None) -> list[Session]:
    reading = reading or new_reading()
    return sessions_of(codex.read(lines(path / "rollout-1.jsonl", items), reading), reading)


def says(at_s: float) -> dict[str, Any]:
    return codex_item(at_s, "message", role="assistant", content=[{"type": "output_text", "text": words(5)}])


def test_the_form_of_today(tmp_path: Path) -> None:
    """The tool's time is from the answer's end to the command's, not to the line that has its output."""
    (session,) = read(tmp_path, codex_rollout())
    assert session.turns == [
        Turn(1000, 40, ToolCall("exec_command", 2.0)),
        Turn(60, 15, think_s=30.0),
        Turn(35, 10),
    ]
    assert (session.source, session.tokens_by) == ("codex", "usage")


def test_counts_behind_the_output_and_repeated_ones(tmp_path: Path) -> None:
    """The count comes late, and again with new rate limits; reasoning belongs to an answer."""
    items = [
        META,
        codex_message(0, "user"),
        codex_count(0, 0, 0, 0),
        codex_item(1, "reasoning", summary=[], encrypted_content="x"),
        codex_call(2, "c1"),
        codex_call(2, "c2"),
        codex_output(3, "c1"),
        codex_output(6, "c2"),
        codex_count(6, 500, 30, 530),
        codex_count(6, 500, 30, 530),
        says(8),
        codex_count(8, 600, 5, 1135),
    ]
    (session,) = read(tmp_path, items)
    assert session.turns == [Turn(500, 30, ToolCall("exec_command", 4.0)), Turn(70, 5)]


def test_a_count_before_its_answer(tmp_path: Path) -> None:
    items = [META, codex_message(0, "user"), codex_count(1, 500, 30, 530), says(1)]
    items += [codex_message(2, "user"), codex_count(3, 600, 5, 1135), says(3)]
    (session,) = read(tmp_path, items)
    assert session.turns == [Turn(500, 30), Turn(70, 5)]


def test_a_compaction_ends_a_session_and_begins_another(tmp_path: Path) -> None:
    """It is told twice: as an item and as an event."""
    items = [
        META,
        codex_message(0, "user"),
        says(1),
        codex_usage(1, 1000, 10),
        codex_line(2, "compacted", message="short", replacement_history=[]),
        codex_line(2, "event_msg", type="context_compacted"),
        says(3),
        codex_usage(3, 900, 10),
    ]
    assert [session.turns for session in read(tmp_path, items)] == [[Turn(1000, 10)], [Turn(900, 10)]]


def test_a_sub_agents_rollout_names_its_parent(tmp_path: Path) -> None:
    """A fork goes on with the lines of what it was forked from, whose name is not its own."""
    spawned = {"subagent": {"thread_spawn": {"parent_thread_id": "root", "depth": 1}}}
    items = [
        codex_line(0, "session_meta", id="child", source=spawned),
        META,
        codex_message(0, "user"),
        says(2),
    ]
    (child,) = read(tmp_path, items)
    (parent,) = read(tmp_path, [META, codex_message(0, "user"), says(1)])
    assert child.parent == parent.id
    assert child.id != parent.id


def test_what_a_fork_repeats_is_left_out(tmp_path: Path) -> None:
    """All of it stamped with the moment of the fork; the first own prompt has it all."""
    copied = [META, codex_message(100.1, "user"), says(100.1), codex_usage(100.2, 1000, 10)]
    own = [codex_message(101, "user"), says(104), codex_usage(104, 1100, 12)]
    reading = new_reading()
    forked = codex_line(100, "session_meta", id="child", forked_from_id="root", parent_thread_id="root")
    (session,) = read(tmp_path, [forked, *copied, *own], reading)
    assert session.turns == [Turn(1100, 12)]
    assert session.parent is not None
    assert reading.notes.counts["repeated answers"] == 1


def test_errors_are_no_turns(tmp_path: Path) -> None:
    reading = new_reading()
    items = [META, codex_message(0, "user"), codex_line(1, "event_msg", type="stream_error", message="no")]
    (session,) = read(tmp_path, [*items, says(2)], reading)
    assert len(session.turns) == 1
    assert reading.notes.counts["failed calls"] == 1


def test_bare_items_of_the_first_versions(tmp_path: Path) -> None:
    """No times, no usage: tools take unknown time, tokens are counted."""
    payloads = [
        item["payload"] for item in (codex_message(0, "user", 20), codex_call(0, "c"), codex_output(0, "c"))
    ]
    first = {"id": "old", "timestamp": "2025-06-01T10:00:00Z", "instructions": None}
    (session,) = read(tmp_path, [first, *payloads, says(0)["payload"]])
    (tool,) = (turn.tool for turn in session.turns[:-1])
    assert tool == ToolCall("exec_command", None)
    assert session.tokens_by == "characters"
    assert session.turns[0].new_tokens == 20


def test_commands_come_along_on_request(tmp_path: Path) -> None:
    """As one line, also where they were given as words."""
    shell = codex_item(
        1, "function_call", name="shell", call_id="s", arguments=json.dumps({"command": ["ls", "a b"]})
    )
    items = [META, codex_message(0, "user"), shell, codex_output(2, "s"), says(3)]
    (session,) = read(tmp_path, items, new_reading(keep_text=True))
    assert session.turns[0].tool == ToolCall("shell", 1.0, command="ls 'a b'")

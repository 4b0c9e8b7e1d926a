"""Claude Code: blocks join to answers, side chains are children, what happened twice counts once."""

from pathlib import Path

from loadgen.importers import claude_code
from loadgen.importers.transcript import Reading
from loadgen.workload import Session, ToolCall, Turn
from tests.loadgen.importers.samples import Claude, claude_session, lines, new_reading, sessions_of


def read(path: Path, claude: Claude, reading: Reading | None = None) -> list[Session]:
    reading = reading or new_reading()
    return sessions_of(claude_code.read(lines(path / "s.jsonl", claude.entries), reading), reading)


def test_blocks_of_one_answer_are_one_turn(tmp_path: Path) -> None:
    """Usage grows from block to block; two tools side by side take as long as both; a pause is the user's."""
    (session,) = read(tmp_path, claude_session())
    assert session.turns == [
        Turn(910, 60, ToolCall("Bash", 3.5)),
        Turn(35, 40, think_s=60.0),
        Turn(20, 20),
    ]
    assert (session.source, session.tokens_by, session.parent) == ("claude-code", "usage", None)


def test_a_result_between_two_blocks_does_not_split_the_answer(tmp_path: Path) -> None:
    """A tool may run, and end, while the model still writes."""
    claude = Claude()
    claude.user(0)
    claude.calls(1, "m1", "a", usage=(100, 0, 0, 10))
    claude.result(2, "a")
    claude.calls(3, "m1", "b", usage=(100, 0, 0, 20))
    claude.result(3.5, "b")
    claude.says(5, "m2", usage=(150, 0, 0, 5))
    (session,) = read(tmp_path, claude)
    assert session.turns == [Turn(100, 20, ToolCall("Bash", 0.5)), Turn(30, 5)]


def test_a_snapshot_of_the_stream_is_no_count_of_the_answer(tmp_path: Path) -> None:
    """Without a stop reason the text is believed where it says more; with one, the count is."""
    claude = Claude()
    claude.user(0)
    snapshot = claude.says(1, "m1", usage=(100, 0, 0, 1))
    snapshot["message"]["stop_reason"] = None
    claude.user(2)
    claude.says(3, "m2", usage=(150, 0, 0, 3))
    (session,) = read(tmp_path, claude)
    assert [(turn.new_tokens, turn.output_tokens) for turn in session.turns] == [(100, 8), (42, 3)]
    assert session.tokens_by == "mixed"


def test_failed_calls_are_no_turns(tmp_path: Path) -> None:
    claude = Claude()
    claude.user(0)
    claude.entry("system", 1, subtype="api_error", retryAttempt=1)
    claude.says(2, "e1", isApiErrorMessage=True)
    synthetic = claude.says(3, "e2")
    synthetic["message"]["model"] = "<synthetic>"
    claude.says(4, "m1", usage=(100, 0, 0, 10))
    reading = new_reading()
    (session,) = read(tmp_path, claude, reading)
    assert session.turns == [Turn(100, 10)]
    assert reading.notes.counts["failed calls"] == 3


def side(claude: Claude, at_s: float, answer: str, **chain: str | None) -> str:
    """A side chain's prompt and answer; returns the entry's id."""
    asked = claude.user(at_s, isSidechain=True, **chain)
    claude.says(at_s + 1, answer, usage=(200, 0, 0, 9), isSidechain=True, parentUuid=asked["uuid"])
    return str(asked["uuid"])


def test_side_chains_between_the_lines_are_children(tmp_path: Path) -> None:
    """Two at once: an older version's entries say nothing but whom they follow."""
    claude = Claude("parent")
    claude.user(0)
    claude.calls(1, "m1", "t", tool="Task", usage=(100, 0, 0, 10))
    one = claude.user(1, isSidechain=True)
    two = claude.user(1, isSidechain=True)
    first = claude.says(2, "s1", usage=(50, 0, 0, 5), isSidechain=True, parentUuid=one["uuid"])
    claude.says(2, "s2", usage=(60, 0, 0, 6), isSidechain=True, parentUuid=two["uuid"])
    claude.says(3, "s3", usage=(80, 0, 0, 7), isSidechain=True, parentUuid=first["uuid"])
    claude.result(9, "t")
    claude.says(11, "m2", usage=(150, 0, 0, 5))
    parent, *children = sessions_of(
        claude_code.read(lines(tmp_path / "parent.jsonl", claude.entries), reading := new_reading()), reading
    )
    assert parent.turns == [Turn(100, 10, ToolCall("Task", 8.0, cores=0.0)), Turn(40, 5)]
    assert [child.turns for child in children] == [[Turn(50, 5), Turn(25, 7)], [Turn(60, 6)]]
    assert {child.parent for child in children} == {parent.id}
    assert len({session.id for session in (parent, *children)}) == 3


def test_a_sub_agents_own_file_names_its_parent(tmp_path: Path) -> None:
    claude = Claude("parent")
    side(claude, 0, "s1", agentId="a7")
    side(claude, 5, "s2", agentId="a7")
    reading = new_reading()
    path = lines(tmp_path / "parent/subagents/agent-a7.jsonl", claude.entries)
    (child,) = sessions_of(claude_code.read(path, reading), reading)
    main = Claude("parent")
    main.user(0)
    main.says(1, "m1", usage=(9, 0, 0, 1))
    (parent,) = sessions_of(
        claude_code.read(lines(tmp_path / "parent.jsonl", main.entries), reading), reading
    )
    assert child.parent == parent.id
    assert len(child.turns) == 2


def test_a_compaction_ends_a_session_and_begins_another(tmp_path: Path) -> None:
    claude = Claude()
    claude.user(0)
    claude.says(1, "m1", usage=(1000, 0, 0, 10))
    claude.entry(
        "system", 2, subtype="compact_boundary", compactMetadata={"trigger": "auto", "preTokens": 1010}
    )
    claude.user(2, isCompactSummary=True)
    claude.says(3, "m2", usage=(990, 0, 0, 10))
    reading = new_reading()
    before, after = read(tmp_path, claude, reading)
    assert (before.turns, after.turns) == ([Turn(1000, 10)], [Turn(990, 10)])
    assert after.id == f"{before.id}.2"
    assert reading.notes.counts["compactions"] == 1


def test_a_resumed_session_repeats_nothing(tmp_path: Path) -> None:
    """The new file begins with the old one's entries."""
    first, again = claude_session(), claude_session()
    again.user(100)
    again.says(101, "m4", usage=(5, 100, 1100, 7))
    reading = new_reading()
    (old,) = sessions_of(claude_code.read(lines(tmp_path / "a.jsonl", first.entries), reading), reading)
    (new,) = sessions_of(claude_code.read(lines(tmp_path / "b.jsonl", again.entries), reading), reading)
    assert len(old.turns) == 3
    assert new.turns == [Turn(1205, 7)]
    assert reading.notes.counts["repeated answers"] == 5


def test_without_usage_text_is_counted(tmp_path: Path) -> None:
    claude = Claude()
    claude.user(0, 25)
    claude.says(1, "m1")
    claude.user(5, 12)
    claude.says(6, "m2")
    (session,) = read(tmp_path, claude)
    assert session.turns == [Turn(25, 8, think_s=4.0), Turn(12, 8)]
    assert session.tokens_by == "characters"


def test_a_question_to_the_user_is_a_pause(tmp_path: Path) -> None:
    claude = Claude()
    claude.user(0)
    claude.calls(1, "m1", "q", tool="AskUserQuestion", usage=(100, 0, 0, 10))
    claude.result(31, "q")
    claude.says(33, "m2", usage=(150, 0, 0, 5))
    (session,) = read(tmp_path, claude)
    assert session.turns == [Turn(100, 10, think_s=30.0), Turn(40, 5)]


def test_a_call_without_a_result_has_no_known_time(tmp_path: Path) -> None:
    claude = Claude()
    claude.user(0)
    claude.calls(1, "m1", "lost", usage=(100, 0, 0, 10))
    claude.user(60)
    claude.says(61, "m2", usage=(150, 0, 0, 5))
    (session,) = read(tmp_path, claude)
    assert session.turns == [Turn(100, 10, ToolCall("Bash", None)), Turn(40, 5)]


def test_a_clock_that_goes_back_makes_a_time_unknown(tmp_path: Path) -> None:
    claude = Claude()
    claude.user(0)
    claude.calls(100, "m1", "a", usage=(100, 0, 0, 10))
    claude.result(40, "a")
    claude.says(41, "m2", usage=(150, 0, 0, 5))
    claude.user(30)
    claude.says(50, "m3", usage=(180, 0, 0, 5))
    reading = new_reading()
    (session,) = read(tmp_path, claude, reading)
    assert session.turns == [Turn(100, 10, ToolCall("Bash", None)), Turn(40, 5), Turn(25, 5)]
    assert reading.notes.counts["times that go back"] == 2


def test_a_last_line_that_is_cut_off_is_told_and_the_rest_kept(tmp_path: Path) -> None:
    path = lines(tmp_path / "s.jsonl", claude_session().entries)
    path.write_bytes(path.read_bytes()[:-30])
    reading = new_reading()
    (session,) = sessions_of(claude_code.read(path, reading), reading)
    assert len(session.turns) == 2
    (broken,) = reading.notes.broken
    assert (broken.path, broken.line) == (str(path), 10)


def test_commands_and_tool_names_are_kept_on_request(tmp_path: Path) -> None:
    (session,) = read(tmp_path, claude_session(), new_reading(keep_text=True))
    tool = session.turns[0].tool
    assert tool is not None
    assert tool.command is not None
    assert tool.command.count("cat ") == 2

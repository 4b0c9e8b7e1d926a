"""OpenHands SDK: events join to answers, usage comes from the state, sub-agents are children."""

from pathlib import Path

from loadgen.importers import openhands
from loadgen.workload import ToolCall, Turn
from tests.loadgen.importers.samples import OpenHands, new_reading, openhands_conversation, sessions_of


def test_a_conversation(tmp_path: Path) -> None:
    """Two actions of one response are one turn; a tool of the user's own has no name here."""
    reading = new_reading()
    directory = openhands_conversation().write(tmp_path / "c")
    (session,) = sessions_of(openhands.read(directory, reading), reading)
    assert session.turns == [
        Turn(1000, 50, ToolCall("terminal", 3.0)),
        Turn(50, 50, think_s=12.0),
        Turn(50, 50),
    ]
    assert (session.source, session.tokens_by) == ("openhands", "usage")


def test_a_condensation_ends_a_session_and_begins_another(tmp_path: Path) -> None:
    conversation = OpenHands()
    conversation.user(0)
    conversation.says(1, "r1")
    conversation.event("Condensation", "environment", 2, summary="short", forgotten_event_ids=["x"])
    conversation.says(3, "r2")
    conversation.used("r1", 1000, 10)
    conversation.used("r2", 950, 10)
    reading = new_reading()
    made = sessions_of(openhands.read(conversation.write(tmp_path / "c"), reading), reading)
    assert [session.turns for session in made] == [[Turn(1000, 10)], [Turn(950, 10)]]


def test_sub_agents_are_children(tmp_path: Path) -> None:
    """Wherever the parent's directory lies, its name is its id without dashes."""
    parent = openhands_conversation()
    directory = parent.write(tmp_path / parent.id.replace("-", ""))
    child = openhands_conversation()
    child.id = "0" * 8 + parent.id[8:]
    below = child.write(directory / "subagents" / child.id.replace("-", ""))
    reading = new_reading()
    (first,) = sessions_of(openhands.read(directory, reading), reading)
    (second,) = sessions_of(openhands.read(below, reading), reading)
    assert (first.parent, second.parent) == (None, first.id)


def test_what_waits_for_an_agent_uses_no_core(tmp_path: Path) -> None:
    conversation = OpenHands()
    conversation.user(0)
    conversation.acts(1, "r1", "c1", tool="delegate")
    conversation.observes(9, "c1", kind="AgentErrorEvent")
    conversation.says(10, "r2")
    reading = new_reading()
    (session,) = sessions_of(openhands.read(conversation.write(tmp_path / "c"), reading), reading)
    assert session.turns[0].tool == ToolCall("delegate", 8.0, cores=0.0)


def test_a_broken_event_and_a_broken_state_are_told_and_the_rest_kept(tmp_path: Path) -> None:
    """Without the state there is no usage, so text is counted."""
    directory = openhands_conversation().write(tmp_path / "c")
    (directory / "base_state.json").write_text('{"id": ', "utf-8")
    last = max((directory / "events").iterdir())
    last.write_text(last.read_text("utf-8")[:40], "utf-8")
    reading = new_reading()
    (session,) = sessions_of(openhands.read(directory, reading), reading)
    assert (len(session.turns), session.tokens_by) == (2, "characters")
    assert [Path(error.path).name for error in reading.notes.broken] == ["base_state.json", last.name]

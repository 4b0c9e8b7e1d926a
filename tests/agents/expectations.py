"""What must hold after every run, whichever framework it was."""

from collections.abc import Sequence

from marsproxy.core.evidence import TurnKind
from tests.agents.observed import Observed
from tests.agents.tasks import Task


def assert_done(tasks: Sequence[Task]) -> None:
    assert [fault for task in tasks for fault in task.faults()] == []


def assert_one_session_each(seen: Observed, agents: int, turns: int, known_by: str | None = None) -> None:
    """No splits, no merges; every turn but the first goes on from the one before; a clean end.

    ``known_by``: the level of evidence that settled every turn but the first, of a client that names
    nothing, or every turn, of one that does. None: whichever.
    """
    assert seen.unexpected() == []
    assert [len(session.turns) for session in seen.sessions.values()] == [turns] * agents
    assert seen.children == []
    assert seen.unfinished() == []
    if known_by is not None:
        assert_known_by(seen, agents, turns, known_by)


def assert_known_by(seen: Observed, agents: int, turns: int, level: str) -> None:
    if level == "header":
        assert seen.levels == {"header": agents * turns}
        return
    later = agents * (turns - 1)
    # Of vLLM's ids of tool calls, 16 random hex digits, one in a hundred looks like a counted one.
    by_history = seen.levels.get("prefix", 0) if level == "call_id" else 0
    assert seen.levels.get(level, 0) + by_history == later
    assert by_history <= later / 4
    assert seen.levels["new"] == agents
    assert sum(seen.levels.values()) == agents * turns


def assert_recovered(seen: Observed, agents: int, faults: int, allowed: Sequence[TurnKind] = ()) -> None:
    """Each agent kept its session, and every turn that a fault ended was made again. ``allowed``: kinds of
    turns that the framework makes beside those of its work."""
    assert len(seen.sessions) == agents
    assert seen.unexpected(TurnKind.RETRY, *allowed) == []
    assert len(seen.unfinished()) == faults
    assert all(session.turns[-1].has_finished for session in seen.sessions.values())


def assert_tools_matched(seen: Observed, tasks: Sequence[Task], *, has_own_commands: bool = False) -> None:
    """The gateway ran what the answers asked for, and each agent's commands in a session of its own.

    ``has_own_commands``: the framework runs some besides, which no answer asked for.
    """
    assert seen.unmatched_gaps(has_own_commands=has_own_commands) == []
    assert len({run.gateway_session for run in seen.runs}) == len(tasks)

"""What must hold after every run, whichever framework it was."""

from collections.abc import Sequence

from marsproxy.core.evidence import TurnKind
from tests.agents.observed import Observed
from tests.agents.tasks import Task


def assert_done(tasks: Sequence[Task]) -> None:
    assert [fault for task in tasks for fault in task.faults()] == []


def assert_one_session_each(seen: Observed, agents: int, turns: int, known_by: str | None = None) -> None:
    """No splits, no merges; every turn but the first goes on from the one before; a clean end.

    ``known_by``: the level of evidence that settled every turn but the first, whose client names nothing,
    or every turn of one that does. None: whichever.
    """
    assert seen.unexpected() == []
    assert [len(session.turns) for session in seen.sessions.values()] == [turns] * agents
    assert seen.children == []
    assert seen.unfinished() == []
    if known_by is not None:
        named, later = agents * turns, agents * (turns - 1)
        expected = {known_by: named} if known_by == "header" else {"new": agents, known_by: later}
        assert seen.levels == expected


def assert_recovered(seen: Observed, agents: int, faults: int) -> None:
    """Each agent kept its session, and every turn that a fault ended was made again."""
    assert len(seen.sessions) == agents
    assert seen.unexpected(TurnKind.RETRY) == []
    assert len(seen.unfinished()) == faults
    assert all(session.turns[-1].has_finished for session in seen.sessions.values())


def assert_tools_matched(seen: Observed, tasks: Sequence[Task]) -> None:
    """The gateway ran what the answers asked for, and each agent's commands in a session of its own."""
    assert seen.unmatched_gaps() == []
    assert len({run.gateway_session for run in seen.runs}) == len(tasks)

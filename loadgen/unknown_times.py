"""Tool times that a trace does not know, replaced where a workload is opened for a run or a simulation.

A trace keeps an unknown time unknown, so that nobody takes it for a measurement. What plays it needs a
number: the median of the known times of that tool in the same file, else of all its tools, else
``UNKNOWN_TOOL_S``. How many were replaced is told with the results.
"""

from collections import defaultdict
from dataclasses import dataclass
from statistics import median

import msgspec

from loadgen.workload import Session, ToolCall, Turn

UNKNOWN_TOOL_S = 0.155
"""Median tool time of SWE-agent runs (profile ``autonomous``); for a file that knows no time at all."""


@dataclass(slots=True)
class UnknownTimes:
    assumed: int = 0
    """Calls that got a time, over all files."""

    def replace(self, sessions: list[Session]) -> list[Session]:
        times = usual_times(sessions)
        return [self._session(session, times) for session in sessions]

    def _session(self, session: Session, times: dict[str | None, float]) -> Session:
        if all(is_known(turn) for turn in session.turns):
            return session
        turns = [turn if is_known(turn) else self._turn(turn, times) for turn in session.turns]
        return msgspec.structs.replace(session, turns=turns)

    def _turn(self, turn: Turn, times: dict[str | None, float]) -> Turn:
        assert turn.tool is not None
        self.assumed += 1
        duration_s = times.get(turn.tool.name, times[None])
        return msgspec.structs.replace(turn, tool=msgspec.structs.replace(turn.tool, duration_s=duration_s))


def is_known(turn: Turn) -> bool:
    return turn.tool is None or turn.tool.duration_s is not None


def usual_times(sessions: list[Session]) -> dict[str | None, float]:
    """Median seconds by tool; under None, of all of them."""
    known: dict[str | None, list[float]] = defaultdict(list)
    for tool in tools_of(sessions):
        if tool.duration_s is not None:
            known[tool.name].append(tool.duration_s)
            known[None].append(tool.duration_s)
    return {None: UNKNOWN_TOOL_S} | {name: median(times) for name, times in known.items()}


def tools_of(sessions: list[Session]) -> list[ToolCall]:
    return [turn.tool for session in sessions for turn in session.turns if turn.tool is not None]

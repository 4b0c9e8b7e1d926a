"""What runs in the gap between a turn and its continuation: nothing but time, or a real command."""

import asyncio
from dataclasses import dataclass
from typing import Protocol

from loadgen.workload import ToolCall


class ToolError(Exception):
    """The tool did not run to its end; the message goes into the record, so it holds no command text."""


@dataclass(frozen=True, slots=True)
class ToolContext:
    """Who runs the tool, for the labels that join the call to its turn."""

    session: str
    turn: int
    mars_session: str | None = None
    tool_call_id: str | None = None


@dataclass(frozen=True, slots=True)
class ToolOutcome:
    queue_s: float | None
    """Wait before the command started; None where nothing could queue."""
    run_s: float | None


class Tools(Protocol):
    async def open(self, session: str) -> None: ...

    async def run(self, call: ToolCall, context: ToolContext) -> ToolOutcome: ...

    async def close(self, session: str) -> None:
        """Also after a failure or a cancellation; never raises."""
        ...


class SleepTools:
    """A tool host with room for everything: each call takes as long as it did in the trace."""

    async def open(self, session: str) -> None:
        pass

    async def run(self, call: ToolCall, context: ToolContext) -> ToolOutcome:
        await asyncio.sleep(call.traced_s)
        return ToolOutcome(queue_s=None, run_s=call.traced_s)

    async def close(self, session: str) -> None:
        pass

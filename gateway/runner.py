"""What the gateway asks of whatever runs a command.

Declared here, by the consumer: ``execs`` walks a command through its states and knows only this. A
runner owns the processes: it enforces the deadline where they run, and leaves none behind.
"""

import asyncio
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from enum import Enum
from typing import Protocol

from gateway.spool import Spool


@dataclass(frozen=True, slots=True)
class RunOrder:
    exec_id: str
    argv: tuple[str, ...]
    cwd: str
    env: Mapping[str, str]
    """The whole environment of the command; a runner adds only its own marker."""
    stdin: bytes
    timeout_s: float
    kill_grace_s: float
    """Between SIGTERM and SIGKILL when ``timeout_s`` is over."""
    stdout: Spool
    stderr: Spool | None
    """None: stderr goes where stdout goes."""


class EndedBy(Enum):
    ITSELF = "itself"
    TIMEOUT = "timeout"
    STOP = "stop"
    NOBODY = "nobody"
    """It did not end, or how it ended cannot be known."""


@dataclass(frozen=True, slots=True)
class Exit:
    by: EndedBy
    returncode: int | None = None
    """As ``subprocess`` has it: -n when it died of signal n."""
    cpu_s: float | None = None
    max_rss_mb: float | None = None


class StartError(Exception):
    """The command was not started, and will not be."""

    def __init__(self, reason: str, exit_code: int | None = None) -> None:
        super().__init__(reason)
        self.reason = reason
        self.exit_code = exit_code
        """126 or 127 where a shell would say so: the program is there no more than its exit code."""


class Runner(Protocol):
    async def run(self, order: RunOrder, on_started: Callable[[], None], stop: asyncio.Future[float]) -> Exit:
        """Start, wait for the end, clean up. When this returns or raises, none of the command's
        processes is left and its spools are complete.

        ``stop``, once done, ends the command: SIGTERM, as many seconds as its result says, SIGKILL.
        Cancelling this coroutine ends it without the grace. Raises StartError, if at all, before
        ``on_started`` is called.
        """
        ...

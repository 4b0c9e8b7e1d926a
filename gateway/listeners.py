"""Who is told of what runs: the seam between commands and leases, and metrics, reports and archives.

Owns the shapes alone.
"""

from collections.abc import Mapping
from typing import Protocol


class ToolRun(Protocol):
    """What a command and a lease have in common for those who are told of them."""

    @property
    def id(self) -> str: ...
    @property
    def tenant(self) -> str: ...
    @property
    def session(self) -> str: ...
    @property
    def host(self) -> str: ...
    @property
    def labels(self) -> Mapping[str, str]: ...
    @property
    def command_digest(self) -> str | None:
        """Hex SHA-256 of the command text."""
        ...

    @property
    def program(self) -> str | None:
        """Name of the program, for learning about its kind; never its arguments."""
        ...

    @property
    def signature(self) -> str | None:
        """By which what it takes is learned."""
        ...

    @property
    def ending(self) -> str | None:
        """Name of the final state; None before."""
        ...

    @property
    def exit_code(self) -> int | None: ...
    @property
    def cpu_s(self) -> float | None: ...
    @property
    def max_rss_mb(self) -> float | None: ...

    def queue_s(self, now: float) -> float: ...
    def run_s(self, now: float) -> float | None:
        """None until it started."""
        ...


class Listener(Protocol):
    """Told of each step once, in order, on the event loop. Must neither block nor raise."""

    def queued(self, run: ToolRun) -> None: ...
    def started(self, run: ToolRun) -> None: ...
    def finished(self, run: ToolRun) -> None: ...

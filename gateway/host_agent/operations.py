"""What every operation of the agent looks like: a request's frame in, an answer's frame out, or a refusal.

Owns the shapes by which the server and the parts that answer know each other, and no operation.
"""

from __future__ import annotations

from collections.abc import Awaitable, Callable
from typing import Any

from gateway.host_agent.isolation import Isolation
from gateway.host_agent.wire import Frame

Operation = Callable[[Frame, "Caller"], Awaitable[Frame]]
"""Fields of the answer without ``id`` and ``ok``, which the server adds. It may be cancelled at every await,
by ``cancel`` or because its connection is gone; that must have no effect on a command."""

Operations = dict[str, Operation]
"""By name (``wire.Op``). Each part has a method ``operations()``; the server gets them in one."""


class Refused(Exception):
    """The answer is no. ``fields`` go into it beside ``error`` and ``message``."""

    def __init__(self, fault: str, message: str, **fields: Any) -> None:
        super().__init__(message)
        self.fault = fault
        self.message = message
        self.fields = fields


class Caller:
    """One connection, for what lives as long as it does."""

    def __init__(self) -> None:
        self.isolation = Isolation()
        """What it demands for its commands and sessions; said once, in its hello."""
        self._at_end: dict[object, Callable[[], None]] = {}

    def at_end(self, key: object, close: Callable[[], None]) -> None:
        self._at_end[key] = close

    def not_at_end(self, key: object) -> None:
        self._at_end.pop(key, None)

    def end(self) -> None:
        """By the server, once, when the connection is gone."""
        while self._at_end:
            self._at_end.popitem()[1]()

"""Which commands this agent knows: those that run, those that are over, those refused or forgotten.

Owns the lookup by id and the bounds. Everything here is on the disk, too, and read back by ``recovery``;
memory holds what is asked for often. Must not know how commands run.
"""

from __future__ import annotations

import bisect
import heapq
import logging
import time
from collections import deque
from typing import Any

from gateway.host_agent.command import Command
from gateway.host_agent.exec_directory import ExecDirectories, ExecDirectory
from gateway.host_agent.operations import Refused
from gateway.host_agent.wire import Fault

log = logging.getLogger(__name__)

MAX_ENDED = 20_000
"""Commands that are over and that no gateway has forgotten; then the first to end is."""
ENDED_KEEP_S = 8 * 86400
"""Longer than any command runs, so a gateway that was away finds what it asked for."""
TAKEN_S = 2 * 86400.0
"""The id of one that is forgotten stays taken so long where nobody says for how long: as a gateway keeps the
key of a command, unless it is set otherwise."""
LONGEST_TAKEN_S = 365 * 86400.0
MAX_TAKEN = 200_000
"""An inode each. Then the first to be free is freed early, which is logged: should its key still be known, it
could run once more."""


class Books:
    def __init__(self, directories: ExecDirectories) -> None:
        self._directories = directories
        self._commands: dict[str, Command] = {}
        self._ids: list[str] = []
        """Of ``_commands``, sorted."""
        self._ended: deque[tuple[float, str]] = deque()
        """When (wall clock) and which, in that order; some are forgotten by now."""
        self._forgotten: list[tuple[float, str]] = directories.forgotten()
        """When (wall clock) each is free again: a heap."""

    def try_claim(self, exec_id: str) -> ExecDirectory | None:
        """None: it was claimed before. Raises OSError."""
        return self._directories.try_claim(exec_id)

    def release(self, exec_id: str) -> None:
        self._directories.release(exec_id)

    def add(self, command: Command) -> None:
        self._commands[command.exec_id] = command
        bisect.insort(self._ids, command.exec_id)

    def remove(self, exec_id: str) -> None:
        """As if it had not been added."""
        if self._commands.pop(exec_id, None) is not None:
            del self._ids[bisect.bisect_left(self._ids, exec_id)]

    def has(self, exec_id: str) -> bool:
        return exec_id in self._commands

    def ended(self, command: Command) -> None:
        self._ended.append((time.time(), command.exec_id))
        self.expire()

    def get(self, exec_id: str) -> Command:
        """Raises Refused: there is none, or there is no more to it."""
        command = self._commands.get(exec_id)
        if command is not None:
            return command
        if self._directories.is_forgotten(exec_id):
            raise Refused(Fault.GONE, "exec: it was forgotten")
        refusal = self._directories.of(exec_id).refusal()
        if refusal is not None:
            raise Refused(Fault.NOT_STARTED, refusal.get("message", "it was refused"), **_exit_code(refusal))
        if self._directories.has(exec_id):  # Never say that it was not started.
            raise Refused(Fault.INTERNAL, "exec: what the disk has about it cannot be read")
        raise Refused(Fault.UNKNOWN_EXEC, "exec: it was never started here")

    def page(self, after: str, limit: int) -> list[Command]:
        start = bisect.bisect_right(self._ids, after)
        return [self._commands[exec_id] for exec_id in self._ids[start : start + limit]]

    def forget(self, exec_id: str, taken_s: float = TAKEN_S) -> None:
        """Of one that is over, was refused, or was forgotten before. Raises OSError."""
        if self._directories.is_forgotten(exec_id):
            return
        free_at_s = time.time() + taken_s
        self._directories.forget(exec_id, free_at_s)
        self.remove(exec_id)
        heapq.heappush(self._forgotten, (free_at_s, exec_id))
        self._free_old()

    def expire(self) -> None:
        now_s = time.time()
        while self._ended and (len(self._ended) > MAX_ENDED or now_s - self._ended[0][0] > ENDED_KEEP_S):
            _, exec_id = self._ended.popleft()
            if exec_id in self._commands:
                self.forget(exec_id)
        self._free_old()

    def _free_old(self) -> None:
        now_s = time.time()
        while self._forgotten and (len(self._forgotten) > MAX_TAKEN or self._forgotten[0][0] <= now_s):
            free_at_s, exec_id = heapq.heappop(self._forgotten)
            if free_at_s > now_s:
                log.warning(
                    "exec %s: its id is free %.0f s early: there are too many", exec_id, free_at_s - now_s
                )
            self._directories.free(exec_id)


def _exit_code(refusal: dict[str, Any]) -> dict[str, Any]:
    return {"exit_code": refusal.get("exit_code")}

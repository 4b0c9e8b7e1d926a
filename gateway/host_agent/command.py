"""One command in the agent's books: what is known of it, while it runs and after.

Owns the fields of a status. Must not know how processes are started or ended.
"""

from __future__ import annotations

import time
from collections.abc import Mapping
from dataclasses import dataclass, fields
from typing import Any

from gateway.host_agent.exec_directory import ExecDirectory
from gateway.host_agent.spool import Spool
from gateway.host_agent.waiters import Waiters


class EndedBy:
    """``ended_by`` of a status."""

    ITSELF = "itself"
    TIMEOUT = "timeout"
    STOP = "stop"
    OOM = "oom"
    NOBODY = "nobody"
    """How it ended cannot be known."""


@dataclass(frozen=True)
class Outcome:
    """Of a command that is over; in the file ``exit`` as it is here. None is unknown."""

    ended_by: str
    started_unix_s: float | None = None
    returncode: int | None = None
    run_s: float | None = None
    cpu_s: float | None = None
    max_rss_mb: float | None = None
    oom_kills: int | None = None
    reason: str | None = None
    state_saved: bool | None = None
    is_spool_full: bool = False
    stdout: tuple[int, int] = (0, 0)
    """Total and kept bytes."""
    stderr: tuple[int, int] = (0, 0)

    def on_disk(self) -> dict[str, Any]:
        return dict(vars(self))

    @classmethod
    def from_disk(cls, found: Mapping[str, Any]) -> Outcome:
        """Fields of a later agent are dropped."""
        known = {each.name: found[each.name] for each in fields(cls) if each.name in found}
        for stream in ("stdout", "stderr"):
            known[stream] = tuple(known.get(stream, (0, 0)))
        return cls(**known)


class Command:
    def __init__(
        self, exec_id: str, session: str, record: Mapping[str, Any], stdout: Spool, stderr: Spool
    ) -> None:
        self.exec_id = exec_id
        self.session = session
        self.record = record
        self.streams = {"stdout": stdout, "stderr": stderr}
        self.outcome: Outcome | None = None
        """None: it runs."""
        self.started_unix_s: float | None = time.time()
        self._started_s = time.monotonic()
        self._end = Waiters()

    @classmethod
    def ended_before(
        cls, exec_id: str, order: Mapping[str, Any], directory: ExecDirectory, outcome: Outcome
    ) -> Command:
        """In the time of an agent before this one."""
        stdout = Spool.of_ended(directory.stdout, *outcome.stdout)
        stderr = Spool.of_ended(directory.stderr, *outcome.stderr)
        command = cls(exec_id, order.get("session", ""), order.get("record", {}), stdout, stderr)
        command.started_unix_s = outcome.started_unix_s
        command.outcome = outcome
        return command

    @property
    def run_s(self) -> float:
        return time.monotonic() - self._started_s

    def end(self, outcome: Outcome) -> None:
        assert self.outcome is None
        self.outcome = outcome
        self._end.wake()

    async def ended(self, timeout_s: float | None) -> None:
        """Return at its end, else after the timeout."""
        if self.outcome is None:
            await self._end.wait(timeout_s)

    def status(self) -> dict[str, Any]:
        """``wire.STATUS_FIELDS``."""
        if self.outcome is not None:
            return {"exec": self.exec_id, "state": "ended", **self.outcome.on_disk()}
        stdout, stderr = self.streams["stdout"], self.streams["stderr"]
        return {
            "exec": self.exec_id,
            "state": "running",
            **Outcome(
                ended_by="",
                started_unix_s=self.started_unix_s,
                run_s=self.run_s,
                is_spool_full=stdout.is_full or stderr.is_full,
                stdout=(stdout.total_bytes, stdout.kept_bytes),
                stderr=(stderr.total_bytes, stderr.kept_bytes),
            ).on_disk(),
            "ended_by": None,
        }

"""What an agent does first: goes on from what the agent before it left on the disk.

A command without an ``exit`` belongs to an agent that died, by kill -9 or with its whole host. Nobody can
say how it ended or would have ended, so what is left of it is killed and it ended by nobody; it is never
run again. A command with one is over and stays answerable.
"""

from __future__ import annotations

import os
import signal
from pathlib import Path
from typing import Any

from gateway.host_agent.books import Books
from gateway.host_agent.command import Command, EndedBy, Outcome
from gateway.host_agent.containment import Containment
from gateway.host_agent.exec_directory import ExecDirectories, ExecDirectory
from gateway.host_agent.process import Identity, identity

_REASON = "the host agent that ran it died"
_REASON_REBOOT = "the host was restarted while it ran"


async def recover(directories: ExecDirectories, books: Books, containment: Containment, boot_id: str) -> None:
    ended: list[tuple[float, Command]] = []
    interrupted: list[tuple[str, ExecDirectory]] = []
    may_live: set[str] = set()
    for exec_id in directories.kept():
        directory = directories.of(exec_id)
        if directory.refusal() is not None:
            continue
        order = directory.order() or {}
        outcome = directory.exit()
        if outcome is None:
            interrupted.append((exec_id, directory))
            may_live.add(exec_id)
        else:
            ended.append((_when(directory), _loaded(exec_id, order, directory, outcome)))
            if order.get("on_exit") == "keep":
                may_live.add(exec_id)
    await _kill(interrupted, may_live, containment, boot_id)
    for exec_id, directory in interrupted:
        outcome = _nobody(directory, boot_id).on_disk()
        directory.write_exit(outcome)
        ended.append((_when(directory), _loaded(exec_id, directory.order() or {}, directory, outcome)))
    for _, command in sorted(ended, key=lambda each: each[0]):
        books.add(command)
        books.ended(command)


def boot_id() -> str:
    """Of this life of the host; process numbers mean nothing across two."""
    return Path("/proc/sys/kernel/random/boot_id").read_text().strip()


def started_fields(pid: int, boot_id: str, started_unix_s: float | None) -> dict[str, Any]:
    """What ``_leader_left`` needs to find a leader again."""
    found = identity(pid)
    return {
        "pid": pid,
        "start_ticks": None if found is None else found.start_ticks,
        "boot_id": boot_id,
        "started_unix_s": started_unix_s,
    }


async def _kill(
    interrupted: list[tuple[str, ExecDirectory]], may_live: set[str], containment: Containment, boot_id: str
) -> None:
    for _, directory in interrupted:
        leader = _leader_left(directory, boot_id)
        if leader is not None:
            _kill_group(leader)
    await containment.clear_up(may_live)


def _leader_left(directory: ExecDirectory, boot_id: str) -> Identity | None:
    """None also if its number is another's by now."""
    started = directory.started()
    if started is None or started.get("boot_id") != boot_id or not isinstance(started.get("pid"), int):
        return None
    found = identity(started["pid"])
    return found if found is not None and found.start_ticks == started.get("start_ticks") else None


def _kill_group(leader: Identity) -> None:
    """The number cannot change hands between the look and the signal but by ending, being reaped and being
    given again within microseconds; a handle to it closes even that gap for the leader."""
    try:
        handle = os.pidfd_open(leader.pid)
    except OSError:
        return
    try:
        if identity(leader.pid) == leader:
            os.killpg(leader.pid, signal.SIGKILL)
    except (ProcessLookupError, PermissionError):
        pass
    finally:
        os.close(handle)


def _loaded(
    exec_id: str, order: dict[str, Any], directory: ExecDirectory, outcome: dict[str, Any]
) -> Command:
    return Command.ended_before(exec_id, order, directory, Outcome.from_disk(outcome))


def _nobody(directory: ExecDirectory, boot_id: str) -> Outcome:
    started = directory.started() or {}
    is_same_life = started.get("boot_id", boot_id) == boot_id
    return Outcome(
        EndedBy.NOBODY,
        started_unix_s=started.get("started_unix_s"),
        reason=_REASON if is_same_life else _REASON_REBOOT,
        stdout=_count(directory.stdout),
        stderr=_count(directory.stderr),
    )


def _count(path: Path) -> tuple[int, int]:
    """What came beyond the cap was counted by the one who died."""
    size = path.stat().st_size if path.exists() else 0
    return size, size


def _when(directory: ExecDirectory) -> float:
    return directory.path.stat().st_mtime

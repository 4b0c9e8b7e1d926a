"""Empty groups of agents that were killed: nobody else removes them.

Owns the rule by which a group is taken for abandoned. A group is named after the directory of its agent,
which cannot be read back from the name; so those are spared whose agent is seen to run. One may run unseen,
in another pid namespace: therefore only what is empty goes, and has been there for a while, and an agent
whose group is gone makes it again (``Cgroups.open``).
"""

from __future__ import annotations

import contextlib
import hashlib
import os
import time
from collections.abc import Iterator
from pathlib import Path

PREFIX = "mars-agent-"
YOUNG_S = 60.0
"""A group that is made now is entered within milliseconds."""
MOST = 1000
"""Groups looked at in one tree and start; the next start goes on."""
BUDGET_S = 0.5
"""In one tree: somebody waits for this agent."""


def group_name(directory: Path) -> str:
    """Of the agent of that directory."""
    return f"{PREFIX}{hashlib.sha256(str(directory).encode()).hexdigest()[:12]}"


def remove_abandoned(own: Path, proc: Path = Path("/proc")) -> int:
    """Beside our own group in a tree; how many went."""
    until_s = time.monotonic() + BUDGET_S
    removed, running = 0, None
    for number, group in enumerate(_beside(own)):
        if number >= MOST or time.monotonic() > until_s:
            break
        if running is None:
            running = {group_name(directory) for directory in _served(proc)}
        if group.name not in running:
            removed += _is_removed(group)
    return removed


def _beside(own: Path) -> Iterator[Path]:
    old_s = time.time() - YOUNG_S
    with contextlib.suppress(OSError), os.scandir(own.parent) as entries:
        for entry in entries:
            if entry.name.startswith(PREFIX) and entry.name != own.name and _is_old(entry, old_s):
                yield Path(entry.path)


def _served(proc: Path) -> Iterator[Path]:
    """Directories of the agents that run here: ``... serve [FLAGS] DIRECTORY``."""
    for entry in os.scandir(proc):
        if entry.name.isdigit():
            with contextlib.suppress(OSError):
                words = Path(entry.path, "cmdline").read_bytes().rstrip(b"\0").split(b"\0")
                if b"serve" in words[:-1]:
                    yield Path(os.fsdecode(words[-1])).resolve()


def _is_removed(group: Path) -> bool:
    """With the empty groups of its commands. The kernel keeps what has a process in it."""
    old_s = time.time() - YOUNG_S
    with contextlib.suppress(OSError), os.scandir(group) as entries:
        for entry in entries:
            if entry.is_dir(follow_symlinks=False) and _is_old(entry, old_s):
                with contextlib.suppress(OSError):
                    Path(entry.path).rmdir()
    try:
        group.rmdir()
    except OSError:
        return False
    return True


def _is_old(entry: os.DirEntry[str], old_s: float) -> bool:
    """As far as one knows: the kernel may have forgotten when a group was made, and then says that it was
    now."""
    with contextlib.suppress(OSError):
        return entry.is_dir(follow_symlinks=False) and entry.stat(follow_symlinks=False).st_mtime < old_s
    return False

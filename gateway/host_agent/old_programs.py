"""The programs of agents that were here before, which gateways of other builds have sent.

Owns which of them may go: a gateway whose program is gone sends it again, so the two that came last are kept
against gateways of two builds that take turns, and what runs is never removed. It must not know who sent
them.
"""

from __future__ import annotations

import contextlib
import os
import re
import time
from pathlib import Path

KEPT = 2
_PROGRAM = re.compile(r"agent-[0-9a-f]{64}\.pyz")
_UNFINISHED = re.compile(r"\.?agent-[0-9a-f]{64}\.pyz\..+")
"""That was being written when its sender died."""
_UNFINISHED_S = 3600.0


def clear_up(directory: Path, proc: Path = Path("/proc")) -> list[str]:
    """Names of what was removed. By who has the directory's lock."""
    came = {}
    with contextlib.suppress(OSError), os.scandir(directory) as entries:
        ours = [each for each in entries if each.name.lstrip(".").startswith("agent-")]
        came = {each.name: each.stat(follow_symlinks=False).st_mtime for each in ours}
    programs = sorted(filter(_PROGRAM.fullmatch, came), key=lambda name: came[name])
    old_s = time.time() - _UNFINISHED_S
    going = [name for name in came if _UNFINISHED.fullmatch(name) and came[name] < old_s]
    if len(programs) > KEPT:
        running = _running(proc)
        going += [name for name in programs[:-KEPT] if name not in running]
    return [name for name in going if _is_removed(directory / name)]


def _running(proc: Path) -> set[str]:
    """Names of those that are words of a command line, by whatever path: processes of others cannot be read,
    and run nothing of ours."""
    found: set[str] = set()
    for entry in os.scandir(proc):
        if entry.name.isdigit():
            with contextlib.suppress(OSError):
                words = Path(entry.path, "cmdline").read_bytes().split(b"\0")
                found.update(os.fsdecode(word).rpartition("/")[2] for word in words if b"agent-" in word)
    return found


def _is_removed(path: Path) -> bool:
    try:
        path.unlink()
    except OSError:
        return False
    return True

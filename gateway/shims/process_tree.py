"""What a process and all below it use of CPU and memory, read from /proc.

Owns reading. A process that has left its parent (a daemon) is not below it any more.
"""

from __future__ import annotations

import os
from collections.abc import Container

from gateway.shims.bursts import Use

_MOST_PROCESSES = 512
"""That are looked at: beyond, the tree works for sure."""


def use_of(pid: int) -> Use:
    ticks, pages, is_running, found, todo = 0, 0, False, 0, [pid]
    while todo and found < _MOST_PROCESSES:
        each = todo.pop()
        fields = _stat(each)
        if fields is None:
            continue
        found += 1
        # utime, stime, and of children that were waited for: cutime, cstime (proc_pid_stat(5)).
        ticks += sum(map(int, fields[11:15]))
        pages += int(fields[21])  # rss
        is_running = is_running or fields[0] in (b"R", b"D")
        todo += _children(each)
    rss_mb = pages * os.sysconf("SC_PAGE_SIZE") / 1e6
    return Use(ticks, is_running=is_running, has_children=found > 1, rss_mb=rss_mb)


def rss_mb_below(pid: int, without: Container[int]) -> float:
    """Of its children but ``without``, and all below them. Pages that several share count for each."""
    return sum(use_of(each).rss_mb or 0.0 for each in _children(pid) if each not in without)


def _stat(pid: int) -> list[bytes] | None:
    """From the state on; None of what is gone, or a zombie."""
    try:
        with open(f"/proc/{pid}/stat", "rb") as file:
            text = file.read()
    except OSError:
        return None
    fields = text[text.rfind(b")") + 2 :].split()
    return None if fields[0] == b"Z" else fields


def _children(pid: int) -> list[int]:
    try:
        with open(f"/proc/{pid}/task/{pid}/children", "rb") as file:
            return [int(each) for each in file.read().split()]
    except OSError:
        return []

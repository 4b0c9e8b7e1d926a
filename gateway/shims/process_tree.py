"""What a process and all below it use of the CPU, read from /proc.

Owns reading. A process that has left its parent (a daemon) is not below it any more.
"""

from __future__ import annotations

from gateway.shims.bursts import Use

_MOST_PROCESSES = 512
"""That are looked at: beyond, the tree works for sure."""


def use_of(pid: int) -> Use:
    ticks, is_running, found, todo = 0, False, 0, [pid]
    while todo and found < _MOST_PROCESSES:
        each = todo.pop()
        fields = _stat(each)
        if fields is None:
            continue
        found += 1
        # utime, stime, and of children that were waited for: cutime, cstime (proc_pid_stat(5)).
        ticks += sum(map(int, fields[11:15]))
        is_running = is_running or fields[0] in (b"R", b"D")
        todo += _children(each)
    return Use(ticks, is_running=is_running, has_children=found > 1)


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

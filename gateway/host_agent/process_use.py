"""What processes use now, read from /proc: where there is no control group that counts it.

Owns the fields of /proc/PID/stat, proc(5). A process that left its session is not found here, and one that
has ended counts only with a parent that waited for it: this is a lower bound.
"""

from __future__ import annotations

import os
from collections.abc import Iterable, Mapping

_SESSION, _UTIME, _STIME, _CUTIME, _CSTIME, _RSS = 3, 11, 12, 13, 14, 21
"""Counted from the state, which is the third field there."""


def stat_fields(pid: int) -> list[str] | None:
    """From the third on: the second is a name with anything in it. None: there is no such process."""
    try:
        with open(f"/proc/{pid}/stat", "rb", buffering=0) as file:  # noqa: PTH123 - many, often
            return file.read().rpartition(b")")[2].decode().split()
    except OSError:
        return None


def rss_mb(pids: Iterable[int]) -> float:
    pages = sum(int(fields[_RSS]) for pid in pids if (fields := stat_fields(pid)) is not None)
    return pages * os.sysconf("SC_PAGE_SIZE") / 1_000_000


def use_of_sessions(leaders: Iterable[int]) -> Mapping[int, tuple[float, float]]:
    """By leader: CPU seconds and resident MB of its session. One walk for all."""
    ticks = dict.fromkeys(leaders, 0)
    pages = dict(ticks)
    if ticks:
        for name in os.listdir("/proc"):  # noqa: PTH208 - names only, of thousands
            fields = stat_fields(int(name)) if name.isdigit() else None
            if fields is not None and (leader := int(fields[_SESSION])) in ticks:
                ticks[leader] += sum(int(fields[n]) for n in (_UTIME, _STIME, _CUTIME, _CSTIME))
                pages[leader] += int(fields[_RSS])
    tick_s, page_mb = 1 / os.sysconf("SC_CLK_TCK"), os.sysconf("SC_PAGE_SIZE") / 1_000_000
    return {leader: (ticks[leader] * tick_s, pages[leader] * page_mb) for leader in ticks}

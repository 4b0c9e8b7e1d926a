"""What runs on this machine, read from /proc: who carries a text, who descends from whom, what they hold.

Owns looking and killing by number. It must not know gateways or hosts. Zombies count as gone: whoever
has to reap them is somebody else.
"""

import contextlib
import os
import signal
import time
from collections import defaultdict
from collections.abc import Callable, Iterable, Iterator
from pathlib import Path
from typing import TypeVar

Found = TypeVar("Found")

HANG_S = 30.0
"""Nothing here takes that long; what does is reported instead of waited for."""

_PAGE_BYTES = os.sysconf("SC_PAGE_SIZE")


def eventually(look: Callable[[], Found], what: str, within_s: float = HANG_S) -> Found:
    """The first thing ``look`` returns that is true."""
    deadline_s = time.monotonic() + within_s
    while not (found := look()):
        assert time.monotonic() < deadline_s, f"never: {what}"
        time.sleep(0.05)
    return found


def carrying(text: str) -> list[int]:
    """Processes that have a text, such as an exec's id or a directory, in their environment."""
    return [pid for pid in _pids() if text.encode() in _read(pid, "environ")]


def named(*words: str) -> list[int]:
    """Processes whose command line holds all of the words."""
    found = ((pid, _read(pid, "cmdline")) for pid in _pids())
    return [pid for pid, line in found if all(word.encode() in line for word in words)]


def descendants(pid: int) -> list[int]:
    children: dict[int, list[int]] = {}
    for each in _pids():
        children.setdefault(_parent(each), []).append(each)
    found, todo = [], [pid]
    while todo:
        below = children.get(todo.pop(), [])
        found += below
        todo += below
    return found


def zombies_of(pid: int) -> list[int]:
    """Its children that have ended and were not waited for."""
    return [each for each in _pids() if _after_name(each).startswith(f"Z {pid} ")]


def command_name(pid: int) -> str:
    return _read(pid, "comm").decode().strip()


def environment(pid: int) -> dict[str, str]:
    """Of a process that is gone meanwhile: nothing is known."""
    pairs = _read(pid, "environ").decode(errors="replace").split("\0")
    return defaultdict(lambda: "?", (pair.split("=", 1) for pair in pairs if "=" in pair))


def open_descriptors(pid: int) -> int:
    return sum(1 for _ in Path(f"/proc/{pid}/fd").iterdir())


def resident_mb(pid: int) -> float:
    fields = _read(pid, "statm").split()
    return int(fields[1]) * _PAGE_BYTES / 1e6 if fields else 0.0


def kill_all(pids: Iterable[int], number: signal.Signals = signal.SIGKILL) -> None:
    for pid in pids:
        with contextlib.suppress(ProcessLookupError):
            os.kill(pid, number)


def _pids() -> Iterator[int]:
    """All but ours; zombies, which have neither environment nor command line, too."""
    for entry in os.scandir("/proc"):
        if entry.name.isdigit() and (pid := int(entry.name)) != os.getpid():
            yield pid


def _parent(pid: int) -> int:
    fields = _after_name(pid).split()
    return int(fields[1]) if fields else 0


def _after_name(pid: int) -> str:
    """Of /proc/PID/stat, what follows the name, which may hold anything."""
    return _read(pid, "stat").decode(errors="replace").rpartition(") ")[2]


def _read(pid: int, name: str) -> bytes:
    try:
        return Path(f"/proc/{pid}/{name}").read_bytes()
    except OSError:  # Gone meanwhile.
        return b""

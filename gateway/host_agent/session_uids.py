"""One user for each session: which are taken, and which is the next.

Owns the numbers. A session's is in a file beside its workspace, so an agent that starts again knows all of
them; the one that was given last is in ``DIR/last_uid``. They are given in a circle: one is given again as
late as can be, since files of it may be left in places that everybody may write. Must not know what a session
is, nor how processes are ended.
"""

from __future__ import annotations

import contextlib
import os
import stat
from collections.abc import Iterable, Iterator
from itertools import chain
from pathlib import Path

from gateway.host_agent.exec_directory import write_whole
from gateway.host_agent.isolation import Isolation
from gateway.host_agent.operations import Refused
from gateway.host_agent.owner import Owner
from gateway.host_agent.wire import Fault

ENTERED = 0o711
"""Of directories above a workspace: its user gets through, and sees nothing."""


_FILE = "uid"


class SessionUids:
    def __init__(self, directory: Path, homes: Iterable[Path]) -> None:
        """``homes``: of all sessions that there are; each holds a workspace."""
        self._directory = directory
        self._last = directory / "last_uid"
        found = (owner_in(home) for home in homes)
        self._taken = {each.uid for each in found if each is not None}
        if self._taken:
            directory.chmod(ENTERED)

    def take(self, uids: tuple[int, int], home: Path) -> Owner:
        """One that nobody has, and that has no process either, for the session of this home. Raises Refused,
        OSError."""
        why_not = trouble(self._directory, Isolation(uids))
        if why_not is not None:
            raise Refused(Fault.FORBIDDEN, why_not)
        first, last = uids
        busy = self._taken | uids_of_processes()
        free = (uid for uid in self._circle(first, last) if uid not in busy)
        uid = next(free, None)
        if uid is None:
            message = f"session_uids: all from {first} to {last} are taken, by sessions or by their processes"
            raise Refused(Fault.NO_SPACE, message)
        for above in (self._directory, home.parent, home):
            above.chmod(ENTERED)
        write_whole(self._last, str(uid).encode())
        write_whole(home / _FILE, str(uid).encode())
        self._taken.add(uid)
        return Owner(uid, uid)

    def free(self, owner: Owner | None) -> None:
        if owner is not None:
            self._taken.discard(owner.uid)

    def _circle(self, first: int, last: int) -> Iterator[int]:
        begin = first
        with contextlib.suppress(OSError, ValueError):
            begin = int(self._last.read_bytes()) + 1
        if not first <= begin <= last:
            begin = first
        return chain(range(begin, last + 1), range(first, begin))


def owner_in(home: Path) -> Owner | None:
    """None: its session has no user of its own."""
    try:
        uid = int((home / _FILE).read_bytes())
    except (OSError, ValueError):
        return None
    return Owner(uid, uid)


def trouble(directory: Path, isolation: Isolation) -> str | None:
    """Why sessions below ``directory`` can have no users of their own, though that is demanded."""
    if isolation.session_uids is None:
        return None
    if os.geteuid() != 0:
        return "session_uids: only an agent that runs as root can give its sessions users of their own"
    first, last = isolation.session_uids
    if not is_mapped(first, last, Path("/proc/self/uid_map").read_text()):
        return f"session_uids: this container has no users {first} to {last} (its user namespace ends before)"
    for above in directory.resolve().parents:
        if not above.stat().st_mode & stat.S_IXOTH:
            return (
                f"session_uids: {above} is closed to other users; the setting `directory` (`spool_dir`, on "
                "the gateway's own host) names another place, such as /var/lib/mars-agent"
            )
    return None


def is_mapped(first: int, last: int, uid_map: str) -> bool:
    """Whether the namespace of this map (user_namespaces(7)) has all of them."""
    for line in sorted(uid_map.splitlines(), key=lambda each: int(each.split()[0])):
        begin, _, count = (int(each) for each in line.split())
        if begin <= first < begin + count:
            first = begin + count
    return first > last


def uids_of_processes() -> set[int]:
    """Real, effective, saved and of the file system, of every process that lives."""
    found: set[int] = set()
    for name in os.listdir("/proc"):  # noqa: PTH208 - names only, of thousands
        if name.isdigit():
            found |= _uids_of(name)
    return found


def _uids_of(pid: str) -> set[int]:
    try:
        with open(f"/proc/{pid}/status", "rb", buffering=0) as file:  # noqa: PTH123 - many
            status = file.read()
    except OSError:
        return set()
    fields = dict(line.partition(b":")[::2] for line in status.splitlines())
    # A zombie does nothing more; but its other threads might, when the first one has ended.
    if fields.get(b"State", b"").split()[:1] == [b"Z"] and fields.get(b"Threads", b"").strip() == b"1":
        return set()
    return {int(each) for each in fields.get(b"Uid", b"").split()}

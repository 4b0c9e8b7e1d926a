"""What bubblewrap makes for us: namespaces in which the machine is read-only but for a workspace and a /tmp.

Owns the program's arguments and how its namespaces become ours. Must not know sessions, nor commands.

Theory of operation. bwrap starts a shell in the view that it made, which says its number and waits. We open
that shell's namespaces and end it; they last as long as our descriptors. Who is not root has a user namespace
too, or two (bwrap nests another in it to mount /dev). They are entered in the order in which the kernel
allows it: the one that owns the view, the view, the inner one.
"""

from __future__ import annotations

import asyncio
import contextlib
import fcntl
import os
import shutil
import subprocess
from pathlib import Path

_NS_GET_USERNS = 0xB701
"""linux/nsfs.h"""
_LIMIT_S = 20.0
"""For bwrap, which takes ten milliseconds on a host that has a core for it."""
_SHOWN_OF_RUN = ("/run/systemd/resolve", "/run/resolvconf", "/run/NetworkManager", "/run/nscd")
"""Names of other hosts are found by what is there."""
_MACHINES = ("/proc/sys", "/proc/sysrq-trigger", "/proc/irq", "/proc/bus", "/proc/fs")
"""Settings of the whole machine, which the user root may write without any capability (proc(5))."""
_WHO = "chmod 1777 /dev/shm 2>/dev/null; echo $$; read _"
_MESSAGE_BYTES = 300

Namespaces = tuple[int, ...]
"""Descriptors, in the order in which they are to be entered."""


class NoSandbox(Exception):
    """It cannot be made here; the message says why."""


async def made(agents: Path, home: Path) -> Namespaces:
    """With ``home/workspace``, and without the rest of the agent's directory. Raises NoSandbox."""
    bwrap = shutil.which("bwrap")
    if bwrap is None:
        raise NoSandbox("sandbox: there is no bwrap on this host (Debian's package bubblewrap)")
    try:
        view = _view(agents, home / "workspace", _private_tmp(home))
        process = _started([bwrap, *view, "sh", "-c", _WHO])
    except OSError as error:
        raise NoSandbox(f"sandbox: bwrap could not be started: {error.strerror}") from error
    with process:
        try:
            return await _namespaces_within(process)
        finally:
            process.kill()  # And what is in it (--die-with-parent).


def close_all(namespaces: Namespaces) -> None:
    for fd in namespaces:
        os.close(fd)


def _private_tmp(home: Path) -> Path:
    """On the disk, so that it is there for the next agent and takes no memory. In a directory of ours: with
    the sticky bit nobody but us can replace what we put there, and nobody else gets to it at all."""
    closed = home / "private"
    closed.mkdir(mode=0o700, exist_ok=True)
    tmp = closed / "tmp"
    tmp.mkdir(exist_ok=True)
    tmp.chmod(0o1777)
    return tmp


def _view(agents: Path, workspace: Path, tmp: Path) -> list[str]:
    """Later ones lie on top: the agent's directory, and so a workspace, may be below /tmp or /run."""
    between = [above for above in reversed(workspace.parents) if agents in above.parents]
    return [
        "--die-with-parent",
        *("--ro-bind", "/", "/"),
        *("--dev", "/dev"),
        *("--tmpfs", "/dev/shm"),
        *("--proc", "/proc"),
        *(word for path in _MACHINES for word in ("--ro-bind-try", path, path)),
        *("--tmpfs", "/run"),
        *(word for path in _SHOWN_OF_RUN for word in ("--ro-bind-try", path, path)),
        *(word for path in ("/tmp", "/var/tmp") if _is_own(path) for word in ("--bind", str(tmp), path)),
        *("--tmpfs", str(agents)),
        *(word for path in between for word in ("--dir", str(path))),  # Else nobody but us gets through.
        *("--bind", str(workspace), str(workspace)),
        *(word for path in ("/dev", "/run", str(agents)) for word in ("--remount-ro", path)),
        *("--chdir", "/"),
    ]


def _is_own(path: str) -> bool:
    """A directory, and no link to another."""
    return Path(path).is_dir() and not Path(path).is_symlink()


def _started(command: list[str]) -> subprocess.Popen[bytes]:
    """Its messages come where its answer would. Raises OSError."""
    return subprocess.Popen(
        command,
        stdin=subprocess.PIPE,
        stdout=subprocess.PIPE,
        stderr=subprocess.STDOUT,
        env={"PATH": os.environ.get("PATH", os.defpath)},
        cwd="/",
        start_new_session=True,
    )


async def _namespaces_within(process: subprocess.Popen[bytes]) -> Namespaces:
    """Raises NoSandbox."""
    assert process.stdout is not None
    try:
        said = await asyncio.wait_for(_read(process.stdout.fileno()), _LIMIT_S)
    except asyncio.TimeoutError:
        raise NoSandbox(f"sandbox: bwrap did not answer within {_LIMIT_S:.0f} s") from None
    if not said.strip().isdigit():
        message = said.decode(errors="replace").strip() or "it says nothing"
        raise NoSandbox(f"sandbox: bwrap cannot make one here: {message}")
    try:
        return _namespaces(int(said))
    except OSError as error:
        raise NoSandbox(f"sandbox: its namespaces cannot be had: {error.strerror}") from error


async def _read(fd: int) -> bytes:
    """What is there when there is something, or its end."""
    loop = asyncio.get_running_loop()
    is_there = asyncio.Event()
    loop.add_reader(fd, is_there.set)
    try:
        await is_there.wait()
    finally:
        loop.remove_reader(fd)
    return os.read(fd, _MESSAGE_BYTES)


def _namespaces(pid: int) -> Namespaces:
    """Those that are ours are left out. Raises OSError."""
    with contextlib.ExitStack() as opened:
        view = os.open(f"/proc/{pid}/ns/mnt", os.O_RDONLY | os.O_CLOEXEC)
        opened.callback(os.close, view)
        owning = fcntl.ioctl(view, _NS_GET_USERNS)
        opened.callback(os.close, owning)
        inner = os.open(f"/proc/{pid}/ns/user", os.O_RDONLY | os.O_CLOEXEC)
        opened.callback(os.close, inner)
        numbers = [os.fstat(fd).st_ino for fd in (owning, view, inner)]
        known = {Path("/proc/self/ns/user").stat().st_ino}
        found: list[int] = []
        for fd, number in zip((owning, view, inner), numbers):
            if number not in known:
                known.add(number)
                found.append(os.dup(fd))
        return tuple(found)

"""The view of the machine that a session's commands get where the host's settings demand a sandbox.

Owns the namespaces of each session and what is in them. Must not know how commands are started.

Theory of operation. Bubblewrap makes a *view* once for each session: all of the machine read-only, the
workspace and a /tmp of the session's own writable, no sight of this agent's directory nor of the sockets in
/run. We open the namespaces of what runs in it and end that; they last as long as our descriptors. A command
enters them between fork and exec. So it is itself what we start, wait for and signal: its exit code, its
signals and its control group are those of any command, which they would not be with a bwrap as its parent,
and nothing is started beside it. It shares /proc and the network with the machine.

Who is not root has a user namespace too, or two (bwrap nests another in it to mount /dev); they are entered
in the order in which the kernel allows it: the one that owns the view, the view, the inner one.
"""

from __future__ import annotations

import asyncio
import contextlib
import fcntl
import math
import os
import shutil
import signal
import subprocess
import time
from pathlib import Path
from typing import NoReturn

from gateway.host_agent.privileges import Confinement, confine

_NS_GET_USERNS = 0xB701
"""linux/nsfs.h"""
_LIMIT_S = 20.0
"""For bwrap, which takes ten milliseconds on a host that has a core for it."""
_AGAIN_S = 60.0
"""After a failure: it may have been for want of memory, or of the program."""
_SHOWN_OF_RUN = ("/run/systemd/resolve", "/run/resolvconf", "/run/NetworkManager", "/run/nscd")
"""Names of other hosts are found by what is there."""
_WHO = "chmod 1777 /dev/shm 2>/dev/null; echo $$; read _"
_MESSAGE_BYTES = 300

Namespaces = tuple[int, ...]


class NoSandbox(Exception):
    """It cannot be made here; the message says why."""


class Sandboxes:
    """``close`` it."""

    def __init__(self, directory: Path) -> None:
        """Of the agent."""
        self._directory = directory
        self._of_session: dict[str, Namespaces] = {}
        self._one_at_a_time = asyncio.Lock()
        self._trouble: str | None = None
        self._try_again_at_s = -math.inf

    async def trouble(self) -> str | None:
        """Why commands cannot have one, found out by trying: once, unless that failed."""
        async with self._one_at_a_time:
            if time.monotonic() >= self._try_again_at_s:
                self._trouble = await self._tried()
                self._try_again_at_s = math.inf if self._trouble is None else time.monotonic() + _AGAIN_S
        return self._trouble

    async def open(self, session: str, home: Path) -> None:
        """Of a session whose workspace is in ``home``. Raises NoSandbox."""
        why_not = await self.trouble()
        if why_not is not None:
            raise NoSandbox(why_not)
        async with self._one_at_a_time:
            if session not in self._of_session:
                self._of_session[session] = await self._made(home)

    def of(self, session: str) -> Namespaces | None:
        return self._of_session.get(session)

    def end(self, session: str) -> None:
        for fd in self._of_session.pop(session, ()):
            os.close(fd)

    def close(self) -> None:
        for session in list(self._of_session):
            self.end(session)

    async def _tried(self) -> str | None:
        home = self._directory / "sandbox_trial"
        try:
            (home / "workspace").mkdir(mode=0o700, parents=True, exist_ok=True)
            namespaces = await self._made(home)
            try:
                return _try(namespaces, home / "workspace")
            finally:
                _close_all(namespaces)
        except NoSandbox as none:
            return str(none)
        except OSError as error:
            return f"sandbox: it could not be tried: {error.strerror}"
        finally:
            shutil.rmtree(home, ignore_errors=True)

    async def _made(self, home: Path) -> Namespaces:
        """Raises NoSandbox."""
        bwrap = shutil.which("bwrap")
        if bwrap is None:
            raise NoSandbox("sandbox: there is no bwrap on this host (Debian's package bubblewrap)")
        try:
            view = _view(self._directory, home / "workspace", _private_tmp(home))
            process = _started([bwrap, *view, "sh", "-c", _WHO])
        except OSError as error:
            raise NoSandbox(f"sandbox: bwrap could not be started: {error.strerror}") from error
        with process:
            try:
                return await _namespaces_within(process)
            finally:
                process.kill()  # And what is in it (--die-with-parent).


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
    """Later ones lie on top: the agent's directory, or a workspace, may be below /tmp or /run."""
    shown = [word for path in _SHOWN_OF_RUN for word in ("--ro-bind-try", path, path)]
    between = [above for above in reversed(workspace.parents) if agents in above.parents]
    return [
        "--die-with-parent",
        *("--ro-bind", "/", "/"),
        *("--dev", "/dev"),
        *("--tmpfs", "/dev/shm"),
        *("--proc", "/proc"),
        *("--tmpfs", "/run"),
        *shown,
        *("--bind", str(tmp), "/tmp"),
        *("--bind", str(tmp), "/var/tmp"),
        *("--tmpfs", str(agents)),
        *(word for path in between for word in ("--dir", str(path))),  # Else nobody but us gets through.
        *("--bind", str(workspace), str(workspace)),
        *(word for path in ("/dev", "/run", str(agents)) for word in ("--remount-ro", path)),
        *("--chdir", "/"),
    ]


def _namespaces(pid: int) -> Namespaces:
    """In the order in which they are to be entered; those that are ours are left out. Raises OSError."""
    ours = Path("/proc/self/ns/user").stat().st_ino
    view = os.open(f"/proc/{pid}/ns/mnt", os.O_RDONLY | os.O_CLOEXEC)
    owning = fcntl.ioctl(view, _NS_GET_USERNS)
    inner = os.open(f"/proc/{pid}/ns/user", os.O_RDONLY | os.O_CLOEXEC)
    found: list[int] = []
    known = {ours}
    for fd in (owning, view, inner):
        number = os.fstat(fd).st_ino
        if number in known:
            os.close(fd)
        else:
            found.append(fd)
            known.add(number)
    return tuple(found)


_OPEN_ROOT, _CLOSED_WORKSPACE, _NOT_ENTERED = 10, 11, 12


def _try(namespaces: Namespaces, workspace: Path) -> str | None:
    pid = os.fork()
    if pid == 0:
        _look_around(namespaces, workspace)
    try:
        _, status = os.waitpid(pid, 0)
    except ChildProcessError:
        return "sandbox: what was tried in it got lost"
    return {
        0: None,
        _OPEN_ROOT: "sandbox: what bwrap makes here is not read-only",
        _CLOSED_WORKSPACE: "sandbox: in what bwrap makes here the workspace cannot be written",
    }.get(os.waitstatus_to_exitcode(status), "sandbox: what bwrap makes here cannot be entered by commands")


def _look_around(namespaces: Namespaces, workspace: Path) -> NoReturn:
    """By a child: what a command would find."""
    found = _NOT_ENTERED
    try:
        signal.set_wakeup_fd(-1)
        confine(Confinement(None, namespaces), ())
        found = _CLOSED_WORKSPACE
        (workspace / "trial").touch()
        found = _OPEN_ROOT
        with contextlib.suppress(OSError):
            Path("/mars-sandbox-trial").touch()
            os._exit(found)
        found = 0
    finally:
        os._exit(found)


def _close_all(fds: Namespaces) -> None:
    for fd in fds:
        os.close(fd)

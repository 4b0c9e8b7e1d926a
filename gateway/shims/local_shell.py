"""The real shell, started here as if the shim were it.

Owns what must look the same to the command and to whoever waits for it: environment, signals, descriptors,
process group, how it ended. It must not know gateways.
"""

from __future__ import annotations

import os
import signal
from collections.abc import Sequence

TYPE_CHECKING = False
if TYPE_CHECKING:  # Importing typing would take longer than starting the shell.
    from typing import NoReturn

COMMAND_MARK = "MARS_GWSH_COMMAND"
"""In the environment of all that runs below a shim: who finds it there is under way already, and what has it
can be found when the shim is killed."""
EXEC_MARK = "MARS_EXEC_ID"
"""The same, of commands that the gateway runs."""
_PYTHONS_OWN = (signal.SIGPIPE, signal.SIGXFSZ)
"""Python ignores them for itself; a command must not inherit that."""


def fill_descriptors() -> None:
    """Where one of the first three is closed, what we open next would be taken for it."""
    for fd in (0, 1, 2):
        try:
            os.fstat(fd)
        except OSError:
            os.set_inheritable(os.open(os.devnull, os.O_RDWR), True)


def own_environment() -> dict[bytes, bytes]:
    """As it was given. Python adds a locale to its own where there is none."""
    with open("/proc/self/environ", "rb") as file:
        pairs = [each.partition(b"=") for each in file.read().split(b"\0")]
    return {name: value for name, separator, value in pairs if separator}


def become(shell: str, words: list[str]) -> NoReturn:
    """Raises OSError."""
    for number in _PYTHONS_OWN:
        signal.signal(number, signal.SIG_DFL)
    os.execve(shell, [shell, *words], own_environment())


def onto(fd: int, *targets: int) -> list[tuple[int, ...]]:
    """Actions for ``spawn``: these numbers are that descriptor there."""
    return [(os.POSIX_SPAWN_DUP2, fd, target) for target in targets]


def spawn(
    shell: str,
    words: list[str],
    mark: str,
    mask: set[int],
    *,
    actions: Sequence[tuple[object, ...]] = (),
    leads_session: bool = False,
) -> int:
    """Its pid. ``mask``: of signals, as it was before the shim changed it. Raises OSError."""
    environment = {**own_environment(), COMMAND_MARK.encode(): mark.encode()}
    return os.posix_spawn(
        shell,
        [shell, *words],
        environment,
        file_actions=list(actions),
        setsid=leads_session,
        setsigmask=mask,
        setsigdef=_PYTHONS_OWN,
    )


def end_like(status: int) -> int:
    """The exit code for this process, of a wait status; it dies here if the command died of a signal, so that
    whoever waits sees the same."""
    code = os.waitstatus_to_exitcode(status)
    if code >= 0:
        return code
    import resource

    resource.setrlimit(resource.RLIMIT_CORE, (0, resource.getrlimit(resource.RLIMIT_CORE)[1]))
    number = -code
    if number not in (signal.SIGKILL, signal.SIGSTOP):
        signal.signal(number, signal.SIG_DFL)
        signal.pthread_sigmask(signal.SIG_UNBLOCK, {number})
    os.kill(os.getpid(), number)
    return 128 + number


def kill_marked(mark: str) -> None:
    """All that runs below the shim with this mark, and what that starts meanwhile."""
    text = f"{COMMAND_MARK}={mark}".encode()
    for _ in range(50):  # A fork that was under way is found in the next round.
        found = [
            pid for pid in map(int, filter(str.isdigit, os.listdir("/proc"))) if text in _environment(pid)
        ]
        if not found:
            return
        for pid in found:
            try:
                os.kill(pid, signal.SIGKILL)
            except ProcessLookupError:
                continue


def _environment(pid: int) -> bytes:
    """Nothing of a zombie, or of another user's."""
    try:
        with open(f"/proc/{pid}/environ", "rb") as file:
            return file.read()
    except OSError:
        return b""

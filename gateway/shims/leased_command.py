"""One command of the real shell, run here while a lease is held.

Theory of operation. The shim stays in front of the command: same process group, same descriptors, and it ends
as the command ended. Beside it there are two small children: the *vigil* renews the lease and, should the
shim be killed, kills what it left and gives the lease back; the *canary* hears which signals went to the
whole group.

Owns their order. It must not know how a lease is had.
"""

from __future__ import annotations

import os
import signal

from gateway.shims import lease, local_shell, signals, vigil
from gateway.shims.calls import GatewayFault


def run(shell: str, words: list[str], held: lease.Lease) -> int:
    """The exit code. Raises GatewayFault where there was no lease, OSError where the shell could not be
    started."""
    mark = os.urandom(8).hex()
    canary = signals.Canary()
    keeper = vigil.keep(_duty(held, mark, canary))
    held.changed = lambda each: keeper.note((each or "").encode())
    try:
        held.take()
        mask = signals.block()
        pid = local_shell.spawn(shell, words, mark, mask)
    except (GatewayFault, OSError):
        canary.end()
        keeper.end(lease.ending(None, None, None))
        raise
    status, cpu_s, max_rss_mb = until_over(pid, canary)
    canary.end()
    code = os.waitstatus_to_exitcode(status)
    keeper.end(lease.ending(code if code >= 0 else 128 - code, cpu_s, max_rss_mb))
    return local_shell.end_like(status)


def until_over(pid: int, canary: signals.Canary) -> tuple[int, float, float]:
    """Wait status, CPU seconds and peak memory; signals are passed on meanwhile."""
    while True:
        number = signals.next_one()
        if number != signal.SIGCHLD:
            pass_on(number, pid, canary)
        ended, status, use = os.wait4(pid, os.WNOHANG)
        if ended == pid:
            return status, use.ru_utime + use.ru_stime, use.ru_maxrss * 1024 / 1e6


def pass_on(number: int | None, pid: int, canary: signals.Canary) -> None:
    if number is None:
        return
    has_it = canary.has_heard(number) and os.getpgid(pid) == os.getpgrp()
    if not has_it:
        os.kill(pid, number)  # Not reaped yet: the number is still its.


def _duty(held: lease.Lease, mark: str, canary: signals.Canary) -> vigil.Duty:
    def noted(word: bytes) -> None:
        held.id = word.decode() or None

    def abandoned() -> None:
        canary.kill()
        local_shell.kill_marked(mark)
        held.give_back()

    def renew() -> None:
        from gateway.shims import process_tree  # By now nobody waits for what it takes to import.

        ours = (canary.pid, os.getpid())
        held.renew(process_tree.rss_mb_below(os.getppid(), without=ours))

    return vigil.Duty(
        period_s=lease.RENEWAL_S,
        renew=renew,
        noted=noted,
        farewell=lambda word: held.give_back(lease.ended_by(word)),
        abandoned=abandoned,
    )

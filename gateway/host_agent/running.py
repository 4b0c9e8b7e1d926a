"""A command from the start of its process to the last of it.

Owns the deadline, the way from SIGTERM to SIGKILL, and the clearing up. Time is the monotonic clock's, here,
on the host: neither a connection nor a jump of the wall clock has a say.

Theory of operation. A command is *starting* until its program is there, or it is known why not; then there is
nothing of it. It *runs* until its leader ends: a background child that holds the output open
delays nobody. It is *stopped* by its deadline or by order, whichever comes first: SIGTERM to the group, the
grace, SIGKILL to all of it. Then it is *cleared up*: everything that is left is killed, what is in the
pipes is taken, the leader is reaped, and the outcome is written down; in that order. With
``keeps_children``, and if nobody stopped it, what is left lives on (``Left``) until its session ends.
"""

from __future__ import annotations

import asyncio
import logging
import math
import resource
import signal
from collections.abc import Callable, Mapping
from dataclasses import dataclass, replace

from gateway.host_agent.cgroups import Group, Use
from gateway.host_agent.command import Command, EndedBy, Outcome
from gateway.host_agent.containment import Containment
from gateway.host_agent.exec_directory import ExecDirectory
from gateway.host_agent.launcher import Launched
from gateway.host_agent.operations import Refused
from gateway.host_agent.order import Order
from gateway.host_agent.process_use import rss_mb, use_of_sessions
from gateway.host_agent.shell_state import ShellStates
from gateway.host_agent.spool import Channel
from gateway.host_agent.waiters import Waiters

log = logging.getLogger(__name__)

_UNKILLABLE_AFTER_S = 10.0
"""A process that outlives SIGKILL so long hangs in the kernel (state D: a dead disk or NFS server)."""
_TERMINAL_FLUSH_S = 0.5
"""What was written to a terminal arrives at its other side a moment later; then that side says so."""


@dataclass
class Left:
    """What lives on when its command is over."""

    exec_id: str
    group: Group | None
    channels: list[Channel]


class Running:
    def __init__(
        self,
        command: Command,
        order: Order,
        launched: Launched,
        directory: ExecDirectory,
        containment: Containment,
        states: ShellStates,
    ) -> None:
        self.command = command
        self.left: Left | None = None
        """Once it is over."""
        self.leader = launched.leader
        self.group = launched.group
        self.feed = launched.feed
        self.terminal_fd = launched.terminal_fd
        self.is_settled = False
        """Its program runs, or never will."""
        self.progress = Waiters()
        """For the next of: it is settled, it is over."""
        self._order = order
        self._channels = launched.channels
        self._given_env = launched.given_env
        self._directory = directory
        self._containment = containment
        self._states = states
        self._loop = asyncio.get_running_loop()
        self._ended_by: str | None = None
        self._is_hopeless = False
        self._kill_at_s = math.inf
        self._killer: asyncio.TimerHandle | None = None
        self._deadline = self._loop.call_later(
            order.timeout_s, self.stop, EndedBy.TIMEOUT, order.kill_grace_s
        )

    def settle(self) -> None:
        self.is_settled = True
        self.progress.wake()

    def stop(self, by: str, grace_s: float) -> None:
        """Again is the same as once, but that the shorter grace counts."""
        if self.leader.is_gone or self._is_hopeless:
            return
        if self._ended_by is None:
            self._ended_by = by
            self.leader.signal_group(signal.SIGTERM)
            self.leader.signal_group(signal.SIGCONT)  # One that was stopped would not hear it.
        kill_at_s = self._loop.time() + grace_s
        if kill_at_s < self._kill_at_s:
            self._kill_at_s = kill_at_s
            self._set_killer(grace_s, self._kill)

    async def refusal(self) -> Refused | None:
        """When its program runs, or when there is nothing of it because that could not be started."""
        refused = await self.leader.refusal()
        if refused is not None:
            await self._until_gone()
            for channel in self._channels:
                channel.close()
            self.leader.reap()
            self._containment.remove(self.command.exec_id, self.group)
        return refused

    async def run(self) -> None:
        await self._until_gone()
        run_s = self.command.run_s
        await self._clear_up()
        self._end(run_s)

    def abandon(self) -> None:
        """The agent ends and leaves it alone: let go of everything of ours, and of nothing of its."""
        self._deadline.cancel()
        if self._killer is not None:
            self._killer.cancel()
        self.leader.close()
        if self.feed is not None:
            self.feed.close()
        for channel in self._channels:
            channel.close()

    async def _until_gone(self) -> None:
        while not self.leader.is_gone and not self._is_hopeless:
            await self.leader.gone()
        self._deadline.cancel()
        if self._killer is not None:
            self._killer.cancel()
        if self.feed is not None:
            self.feed.close()

    def _set_killer(self, delay_s: float, what: Callable[[], None]) -> None:
        if self._killer is not None:
            self._killer.cancel()
        self._killer = self._loop.call_later(delay_s, what)

    def _kill(self) -> None:
        self.leader.signal_group(signal.SIGKILL)
        if self.group is not None:
            self.group.kill()
        self._set_killer(_UNKILLABLE_AFTER_S, self._give_up)

    def _give_up(self) -> None:
        self._is_hopeless = True
        self.leader.stop_waiting()

    async def _clear_up(self) -> None:
        exec_id = self.command.exec_id
        may_leave = self._order.keeps_children and self._ended_by is None
        if may_leave and await self._containment.has_any(exec_id, self.group):
            self.left = Left(exec_id, self.group, self._channels)
            for channel in self._channels:
                channel.end_of_output()
            return
        if self.group is None:
            self.leader.signal_group(signal.SIGKILL)
        await self._containment.kill(exec_id, self.group)
        for channel in self._channels:
            if self.terminal_fd is not None:
                await channel.hung_up(_TERMINAL_FLUSH_S)
            channel.finish()

    def _end(self, run_s: float) -> None:
        use = Use() if self.group is None else self.group.use()
        outcome = self._outcome(run_s, use)
        try:
            self._directory.write_exit(outcome.on_disk())
        except OSError as error:
            log.error("exec %s: its end could not be written down: %s", self.command.exec_id, error.strerror)
        if self.left is None:
            self._containment.remove(self.command.exec_id, self.group)
        self.command.end(outcome)

    def _outcome(self, run_s: float, use: Use) -> Outcome:
        stdout, stderr = self.command.streams["stdout"], self.command.streams["stderr"]
        outcome = Outcome(
            EndedBy.NOBODY,
            started_unix_s=self.command.started_unix_s,
            run_s=run_s,
            oom_kills=use.oom_kills,
            is_spool_full=stdout.is_full or stderr.is_full,
            stdout=(stdout.total_bytes, stdout.kept_bytes),
            stderr=(stderr.total_bytes, stderr.kept_bytes),
        )
        if not self.leader.is_gone:
            self.leader.close()
            return replace(outcome, reason="it hangs in the kernel and cannot be killed")
        usage = self.leader.reap()
        return replace(
            outcome,
            ended_by=self._how(use),
            returncode=self.leader.returncode,
            cpu_s=usage.ru_utime + usage.ru_stime if use.cpu_s is None else use.cpu_s,
            max_rss_mb=_peak_mb(usage, use),
            state_saved=self._save_state() if self._order.keeps_env_cwd else None,
        )

    def _how(self, use: Use) -> str:
        """One that succeeded without the process that was killed for its memory ended by itself."""
        if self._ended_by is not None:
            return self._ended_by
        return EndedBy.OOM if use.oom_kills and self.leader.returncode != 0 else EndedBy.ITSELF

    def _save_state(self) -> bool:
        left_at = self._directory.shell_state
        did_save = self._states.keep(self._order.session, left_at, self._order.cwd, self._given_env)
        left_at.unlink(missing_ok=True)
        return did_save


def _peak_mb(usage: resource.struct_rusage, use: Use) -> float | None:
    """Linux counts our own resident set towards the leader's peak, from before its exec (exec_mmap in
    fs/exec.c). A peak that is no higher than ours says nothing about the command."""
    ours = resource.getrusage(resource.RUSAGE_SELF)
    peaks = [use.peak_mb] if use.peak_mb is not None else []
    if usage.ru_maxrss > ours.ru_maxrss:
        peaks.append(usage.ru_maxrss * 1024 / 1_000_000)
    return max(peaks, default=None)


def usage_of(running: Mapping[str, Running]) -> dict[str, dict[str, float | None]]:
    """What each uses now; None is unknown."""
    without_group = [each.leader.pid for each in running.values() if each.group is None]
    of_sessions = use_of_sessions(without_group)
    found: dict[str, dict[str, float | None]] = {}
    for exec_id, each in running.items():
        if each.group is None:
            cpu_s, rss = of_sessions[each.leader.pid]
            found[exec_id] = {"cpu_s": cpu_s, "rss_mb": rss}
        else:
            use = each.group.use()
            rss_or_sum = rss_mb(each.group.pids()) if use.rss_mb is None else use.rss_mb
            found[exec_id] = {"cpu_s": use.cpu_s, "rss_mb": rss_or_sum}
    return found

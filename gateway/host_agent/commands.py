"""The commands of this host: the one who starts, watches and ends them.

Owns their tasks and the way they end together: with their session, with the agent. Must not know frames.
"""

from __future__ import annotations

import asyncio
import contextlib
import logging
import signal
from typing import Any

from gateway.host_agent.books import Books
from gateway.host_agent.command import Command, EndedBy, Outcome
from gateway.host_agent.confines import Confines
from gateway.host_agent.containment import Containment
from gateway.host_agent.exec_directory import ExecDirectories, ExecDirectory
from gateway.host_agent.isolation import Isolation
from gateway.host_agent.launcher import Launcher, Workspaces
from gateway.host_agent.leftovers import Leftovers
from gateway.host_agent.operations import Refused
from gateway.host_agent.order import Order
from gateway.host_agent.process import not_started
from gateway.host_agent.recovery import boot_id, recover, started_fields
from gateway.host_agent.running import Running, usage_of
from gateway.host_agent.shell_state import ShellStates
from gateway.host_agent.subreaper import Subreaper
from gateway.host_agent.tasks import Tasks
from gateway.host_agent.wire import Fault

log = logging.getLogger(__name__)

_EXPIRY_PERIOD_S = 600.0


class Commands:
    """``close`` it."""

    def __init__(
        self,
        books: Books,
        launcher: Launcher,
        containment: Containment,
        confines: Confines,
        states: ShellStates,
        workspaces: Workspaces,
        directories: ExecDirectories,
    ) -> None:
        self.books = books
        self._launcher = launcher
        self._containment = containment
        self._confines = confines
        self._states = states
        self._workspaces = workspaces
        self._directories = directories
        self._boot_id = boot_id()
        self._running: dict[str, Running] = {}
        self._leaders: set[int] = set()
        self._leftovers = Leftovers(containment)
        self._tasks = Tasks()
        self._subreaper = Subreaper(self._leaders.__contains__, self._leftovers.release_dead)
        self._expiry: asyncio.TimerHandle | None = None
        self._is_recovered = asyncio.Event()
        self._tasks.spawn("recovery", self._recover())

    @property
    def running(self) -> int:
        """With those that are over but for what they left in the background."""
        return len(self._running) + len(self._leftovers)

    async def recovered(self) -> None:
        """What the agent before us left is cleared up and known: before that, no answer would be true."""
        await self._is_recovered.wait()

    def capabilities(self) -> dict[str, Any]:
        return {**self._containment.capabilities(), "adopts_orphans": self._subreaper.is_on}

    async def holds(self, isolation: Isolation) -> dict[str, Any]:
        return await self._confines.holds(isolation)

    def usage(self) -> dict[str, dict[str, float | None]]:
        return usage_of(self._running)

    async def start(self, order: Order) -> tuple[Command, bool]:
        """The command, and whether it existed before. Cancelling it has no effect on the command. Raises
        Refused."""
        if order.isolation.is_any and not self._is_known(order.exec_id):
            await self._confines.prepare(order)
        existed = not self._begin(order)
        await self.settled(order.exec_id)
        return self.books.get(order.exec_id), existed

    async def settled(self, exec_id: str) -> None:
        """It is not about to start: it runs, is over or was never started."""
        while (running := self._running.get(exec_id)) is not None and not running.is_settled:
            await running.progress.wait(None)

    def running_of(self, exec_id: str) -> Running | None:
        """Also of one that is about to start. None: it is over. Raises Refused: there is none."""
        self.books.get(exec_id)
        return self._running.get(exec_id)

    async def signal_tree(self, running: Running, number: signal.Signals) -> bool:
        return await self._containment.signal_tree(running.command.exec_id, running.group, number)

    def forget(self, exec_id: str, taken_s: float) -> None:
        if exec_id in self._running:
            raise Refused(Fault.BAD_REQUEST, "exec: it still runs")
        try:
            self.books.get(exec_id)
        except Refused as refused:
            if refused.fault == Fault.UNKNOWN_EXEC:
                raise
        self.books.forget(exec_id, taken_s)

    async def end_session(self, session: str) -> None:
        """Whatever runs in it, and what its commands left in the background."""
        await self._end_all([each for each in self._running.values() if each.command.session == session])
        await self._leftovers.end_session(session)
        await self._confines.end_session(session)
        self._states.remove(session)

    async def close(self, end_running: bool) -> None:
        """Without ``end_running``, what runs goes on unwatched, and a later agent ends it."""
        if self._expiry is not None:
            self._expiry.cancel()
        if end_running:
            await self._end_all(list(self._running.values()))
            await self._leftovers.end_all()
            await self._tasks.join()
        else:
            await self._tasks.close()
            self._abandon()
        self._subreaper.close()
        self._confines.close()
        self._containment.close()

    async def _end_all(self, those: list[Running]) -> None:
        for each in those:
            each.stop(EndedBy.STOP, 0)
        for each in those:
            while self._running.get(each.command.exec_id) is each:
                await each.progress.wait(None)

    def _abandon(self) -> None:
        for each in self._running.values():
            each.abandon()
        self._running.clear()
        self._leftovers.abandon()

    def _check_session(self, order: Order) -> None:
        """Before the id is claimed: it may be asked for again when there is one."""
        if not self._is_known(order.exec_id):
            self._workspaces.path(order.session)

    def _check_life(self, order: Order) -> None:
        """The directory of a command is not synced to the disk before it starts, which would cost each of
        them milliseconds: after a power cut it may be gone."""
        if order.boot_id not in (None, self._boot_id) and not self._is_known(order.exec_id):
            raise Refused(
                Fault.GONE, "exec: the host was started again since; whether it was run is not known"
            )

    def _is_known(self, exec_id: str) -> bool:
        try:
            self.books.get(exec_id)
        except Refused as refused:
            return refused.fault != Fault.UNKNOWN_EXEC
        return True

    def _begin(self, order: Order) -> bool:
        """False: somebody did before. It never waits, so it is done or not done."""
        self._check_life(order)
        self._check_session(order)
        try:
            directory = self.books.try_claim(order.exec_id)
        except OSError as error:
            raise not_started(f"no directory for it: {error.strerror}") from error
        if directory is None:
            return False
        try:
            self._launch(order, directory)
        except Refused as refused:
            raise self._refused(order.exec_id, directory, refused) from refused
        return True

    def _launch(self, order: Order, directory: ExecDirectory) -> None:
        try:
            directory.write_order(order.on_disk())
            directory.reserve_exit()
        except OSError as error:
            raise not_started(f"its order could not be written down: {error.strerror}") from error
        launched = self._launcher.launch(order, directory)
        command = Command(order.exec_id, order.session, order.record, launched.stdout, launched.stderr)
        running = Running(command, order, launched, directory, self._containment, self._states)
        self._leaders.add(launched.leader.pid)
        self._running[order.exec_id] = running
        self.books.add(command)
        self._write_started(running, directory)
        self._tasks.spawn(f"exec {order.exec_id}", self._run(running, directory))

    def _write_started(self, running: Running, directory: ExecDirectory) -> None:
        """Should it not be there for the next agent, that one finds the processes by group and marker."""
        fields = started_fields(running.leader.pid, self._boot_id, running.command.started_unix_s)
        with contextlib.suppress(OSError):
            directory.write_started(fields)

    async def _run(self, running: Running, directory: ExecDirectory) -> None:
        command = running.command
        try:
            refused = await running.refusal()
            running.settle()
            if refused is None:
                await running.run()
            else:
                self._refused(command.exec_id, directory, refused)
                self.books.remove(command.exec_id)
        except Exception:
            log.exception("exec %s: the agent failed", command.exec_id)
        self._over(running)

    def _over(self, running: Running) -> None:
        command = running.command
        self._leaders.discard(running.leader.pid)
        del self._running[command.exec_id]
        if running.left is not None:
            self._leftovers.add(command.session, running.left)
        if self.books.has(command.exec_id):
            if command.outcome is None:
                command.end(Outcome(EndedBy.NOBODY, reason="the host agent failed"))
            self.books.ended(command)
        running.progress.wake()

    def _refused(self, exec_id: str, directory: ExecDirectory, refused: Refused) -> Refused:
        """The same answer to whoever asks again; where not even that can be written, the id is free."""
        answer = not_started(refused.message, refused.fields.get("exit_code"))
        try:
            directory.write_refusal({"message": answer.message, **answer.fields})
        except OSError:
            self.books.release(exec_id)
        return answer

    async def _recover(self) -> None:
        try:
            await recover(self._directories, self.books, self._containment, self._boot_id)
            self._expire()
        finally:
            self._is_recovered.set()  # What was not read is refused one by one (``Books.get``).

    def _expire(self) -> None:
        self.books.expire()
        self._expiry = asyncio.get_running_loop().call_later(_EXPIRY_PERIOD_S, self._expire)

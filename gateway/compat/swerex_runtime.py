"""The operations of a SWE-ReX runtime, on one session of the gateway.

A shell's command is an exec that passes the gate (``shell_gate``); so is every one-shot command, and every
file operation, as paths mean what they mean to commands. It must not know HTTP.
"""

import shlex
from dataclasses import dataclass

from gateway.compat import swerex_faults as faults
from gateway.compat.calls import DOOR_LABEL, ended, output_of, run_to_end, session_on_demand, until_ended
from gateway.compat.shell_gate import DIRECTORY, GATE, GATE_PATH, VIEW, VIEW_PATH, gate_env, state_path
from gateway.compat.swerex_protocol import (
    Action,
    BashAction,
    BashInterrupt,
    CreateSession,
    Execute,
    Executed,
    Observation,
    SessionCreated,
)
from gateway.compat.swerex_results import PROMPT, Output, executed, failure_reason, observation, shown
from gateway.compat.swerex_shells import MAX_SHELLS, Runtime, Runtimes, Shell
from gateway.compat.workspace_files import put_bytes
from gateway.errors import Refusal
from gateway.exec_record import Exec
from gateway.gateway import Gateway
from gateway.protocol import ExecRequest, ExecState, OutputRequest, Scope, StreamName
from gateway.transfers import Workspace

DOOR = "swerex"
_LEAST_STARTUP_S = 10.0
"""Clients ask for one second, which a busy host may take for the process alone."""
_KILL_GRACE_S = 2.0
"""Clients that set a timeout expect their exception then, and not much later."""


@dataclass(frozen=True, slots=True)
class SwerexRuntime:
    """For one request: ``request_id`` is its idempotency key."""

    gateway: Gateway
    runtimes: Runtimes
    tenant: str
    session_id: str
    request_id: str | None

    @property
    def key(self) -> str | None:
        return None if self.request_id is None else f"{DOOR}/{self.session_id}/{self.request_id}"

    @property
    def is_private(self) -> bool:
        """Where commands may start anywhere, the host is taken for the agent's own."""
        return not self.gateway.limits.allow_absolute_cwd

    async def create_session(self, body: CreateSession) -> SessionCreated:
        runtime = await self.prepared()
        shell = await self._find(runtime, body.session)
        if shell is None:
            shell = self._add(runtime, body.session)
        elif shell.made_by is None or shell.made_by != self.request_id:
            raise faults.session_exists(body.session)
        try:
            record, output = await self._start(runtime, shell, body)
        except BaseException:
            runtime.shells.pop(shell.name, None)
            raise
        if record.exit_code != 0 and not await self._has_state(runtime, shell.name):
            runtime.shells.pop(shell.name, None)
            raise faults.not_possible(f"the shell did not start: {shown(output.stdout) or record.reason}")
        return SessionCreated(shown(output.stdout))

    async def run_in_session(self, action: Action) -> Observation:
        runtime = self._runtime(action.session)
        shell = await self._find(runtime, action.session)
        if shell is None:
            raise faults.no_session(action.session)
        if isinstance(action, BashInterrupt):
            return await self._interrupt(shell, action)
        _check_possible(action)
        request = self._in_shell(shell, action.command, action.timeout)
        record, output = await self._run(runtime, shell, request)
        return observation(action, record, output)

    async def close_session(self, name: str) -> None:
        runtime = self._runtime(name)
        shell = await self._find(runtime, name)
        if shell is None:
            raise faults.no_session(name)
        await self._stop(shell, "its shell was closed")
        await self.workspace(runtime).remove(state_path(name))
        runtime.shells.pop(name, None)

    async def execute(self, command: Execute) -> Executed:
        runtime = await self.prepared()
        request = ExecRequest(
            command=_text(command),
            cwd=".",
            env={**(command.env or {}), **gate_env(is_private=self.is_private, cwd=command.cwd)},
            output=OutputRequest(merge=command.merge_output_streams),
            timeout_s=command.timeout,
            kill_grace_s=_KILL_GRACE_S,
            on_exit="keep",
        )
        record = await run_to_end(self.gateway, runtime.session, request, self.key)
        return executed(command, record, await self.output(record))

    async def close(self) -> None:
        """A session that was there before us stays, with its files."""
        session = self.gateway.sessions.find(self.tenant, self.session_id)
        if session is None:
            return
        runtime = self.runtimes.of(session)
        self.runtimes.forget(runtime)
        if session.settings.labels.get(DOOR_LABEL) == DOOR:
            await self.gateway.sessions.end(session, "its SWE-ReX runtime was closed")
            return
        for shell in list(runtime.shells.values()):
            await self._stop(shell, "its SWE-ReX runtime was closed")
        await self.workspace(runtime).remove(DIRECTORY)

    async def prepared(self) -> Runtime:
        """With the gate in its workspace; the session is made if it is not there."""
        session = await session_on_demand(self.gateway, self.tenant, self.session_id, DOOR)
        runtime = self.runtimes.of(session)
        async with runtime.preparing:
            if not runtime.is_prepared:
                workspace = self.workspace(runtime)
                await put_bytes(workspace, VIEW_PATH, VIEW.encode())
                await put_bytes(workspace, GATE_PATH, GATE.encode())
                await self._try_gate(runtime)
                runtime.is_prepared = True
        return runtime

    def workspace(self, runtime: Runtime) -> Workspace:
        session = runtime.session
        return Workspace(self.gateway.sessions.client(session), session.name, session.id)

    async def output(self, record: Exec) -> Output:
        stdout, stderr = [await output_of(self.gateway, record, stream) for stream in StreamName]
        return Output(stdout, stderr)

    async def _try_gate(self, runtime: Runtime) -> None:
        """Else what ``unshare`` says would be taken for what a command says."""
        request = ExecRequest(
            command=":", cwd=".", env=gate_env(is_private=self.is_private), output=OutputRequest(merge=True)
        )
        record = await run_to_end(self.gateway, runtime.session, request, None)
        if record.exit_code != 0:
            said = shown((await self.output(record)).stdout).strip() or record.reason
            message = f"host {record.host!r} gives a session no root directory of its own: {said}"
            raise faults.not_possible(f"{message}; a gateway with allow_absolute_cwd shares the host's")

    def _runtime(self, shell: str) -> Runtime:
        if self.gateway.sessions.find(self.tenant, self.session_id) is None and self.gateway.hosts.are_asked:
            raise faults.no_session(shell)
        return self.runtimes.of(self.gateway.sessions.use(self.tenant, self.session_id))

    async def _find(self, runtime: Runtime, name: str) -> Shell | None:
        """Also one that an earlier gateway, or we before we forgot it, made in this workspace."""
        if name not in runtime.shells and await self._has_state(runtime, name):
            runtime.shells.setdefault(name, Shell(name, None))
        return runtime.shells.get(name)

    def _add(self, runtime: Runtime, name: str) -> Shell:
        if len(runtime.shells) >= MAX_SHELLS:
            raise faults.not_possible(f"{MAX_SHELLS} shells are open, which is the limit; close one")
        return runtime.shells.setdefault(name, Shell(name, self.request_id))

    async def _has_state(self, runtime: Runtime, name: str) -> bool:
        try:
            await self.workspace(runtime).read(state_path(name), 0, 1)
        except Refusal as refusal:
            if refusal.code == "file_not_found":
                return False
            raise
        return True

    async def _start(self, runtime: Runtime, shell: Shell, body: CreateSession) -> tuple[Exec, Output]:
        sources = [f"source {shlex.quote(path)}" for path in body.startup_source]
        command = "; ".join([f"PS1={PROMPT}", *sources])
        request = self._in_shell(shell, command, max(body.startup_timeout, _LEAST_STARTUP_S))
        record, output = await self._run(runtime, shell, request)
        if record.state is ExecState.TIMED_OUT:
            message = f"the shell did not start within {request.timeout_s:g} seconds"
            raise faults.timed_out(message, output=shown(output.stdout))
        return record, output

    def _in_shell(self, shell: Shell, command: str, timeout_s: float | None) -> ExecRequest:
        return ExecRequest(
            command=command or ":",
            cwd=".",
            env=gate_env(is_private=self.is_private, shell=shell.name),
            output=OutputRequest(merge=True),
            timeout_s=timeout_s,
            kill_grace_s=_KILL_GRACE_S,
            on_exit="keep",
        )

    async def _run(self, runtime: Runtime, shell: Shell, request: ExecRequest) -> tuple[Exec, Output]:
        async with shell.at_rest():
            record = shell.current = await self.gateway.submission.submit(runtime.session, request, self.key)
            await ended(self.gateway, record)
        return record, await self.output(record)

    async def _interrupt(self, shell: Shell, action: BashInterrupt) -> Observation:
        """As often as was asked for by SIGINT, and then by force. With nothing to interrupt there is no exit
        code."""
        record = shell.running
        if record is None:
            return Observation(expect_string=PROMPT)
        for _ in range(action.n_retry):
            if record.state is ExecState.RUNNING:
                await self.gateway.execs.signal(record, "SIGINT", Scope.GROUP)
                await self.gateway.execs.wait_ended(record, action.timeout)
        await self._stop(shell, "it was interrupted")
        output = shown((await self.output(record)).stdout)
        return Observation(output.strip(), record.exit_code, failure_reason(record), PROMPT)

    async def _stop(self, shell: Shell, reason: str) -> None:
        if (record := shell.running) is not None:
            self.gateway.execs.cancel(record, reason)
            await until_ended(self.gateway, record)


def _check_possible(action: BashAction) -> None:
    if action.is_interactive_command or action.is_interactive_quit:
        raise faults.not_possible(
            "is_interactive_command, is_interactive_quit: shells here have no terminal; must be false"
        )
    if action.expect:
        raise faults.not_possible("expect: shells here have no prompts to wait for; must be empty")


def _text(command: Execute) -> str:
    """For bash, of what ``subprocess.run`` would do with it."""
    words = command.command
    if isinstance(words, str):
        return words if command.shell else shlex.quote(words)
    return shlex.join(["sh", "-c", *words] if command.shell else words)

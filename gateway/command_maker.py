"""From a request and its session to a command, checked and complete.

Owns the defaults, the environment that commands start with and what is predicted of them.
"""

from collections.abc import Callable

from gateway.command import Command
from gateway.field_checks import (
    check_argv,
    check_cwd,
    check_limits,
    check_request,
    check_variables,
    stdin_bytes,
)
from gateway.host import ResourceLimits, RunOrder, TerminalSize
from gateway.hosts import Hosts
from gateway.limits import Limits
from gateway.predictions import Predictions
from gateway.protocol import ExecRequest, LimitsRequest
from gateway.session_record import Session
from gateway.sessions import Sessions
from gateway.tool_signature import command_signature, program_name
from marsproxy.core.command_text import command_digest, command_text

_QUIET = {
    "GIT_TERMINAL_PROMPT": "0",
    "DEBIAN_FRONTEND": "noninteractive",
    "PAGER": "cat",
    "GIT_PAGER": "cat",
    "TERM": "dumb",
    "LANG": "C.UTF-8",
}
"""Nobody is there to answer a question or to leave a pager. PATH and HOME are the host's own."""
_TERMINAL = {"TERM": "xterm-256color", "LANG": "C.UTF-8"}
"""With a terminal somebody is."""


class CommandMaker:
    def __init__(
        self,
        *,
        limits: Limits,
        sessions: Sessions,
        hosts: Hosts,
        predictions: Predictions,
        clock: Callable[[], float],
    ) -> None:
        self._limits = limits
        self._sessions = sessions
        self._hosts = hosts
        self._predictions = predictions
        self._clock = clock

    def make(
        self, session: Session, request: ExecRequest, exec_id: str, *, body_digest: str | None = None
    ) -> Command:
        """Raises Refusal."""
        check_request(request, self._limits, self._hosts.get(session.host).queue.slots)
        argv, text = _argv_and_text(request)
        signature = command_signature(text)
        predicted = self._predictions.predict(signature, self._clock())
        asked_s, limits = request.queue_timeout_s, self._limits
        return Command(
            tenant=session.tenant,
            session=session.id,
            host=session.host,
            order=self._order(session, request, exec_id, argv),
            command_digest=command_digest(text),
            program=program_name(text),
            signature=signature,
            queue_timeout_s=limits.queue_timeout_s if asked_s is None else asked_s,
            cpu=request.cpu,
            memory_mb=predicted.memory_mb if request.memory_mb is None else request.memory_mb,
            labels={**session.settings.labels, **request.labels},
            family=self._sessions.family(session),
            priority=session.settings.priority,
            expected_s=predicted.run_p90_s,
            body_digest=body_digest,
        )

    def _order(self, session: Session, request: ExecRequest, exec_id: str, argv: tuple[str, ...]) -> RunOrder:
        limits, settings = self._limits, session.settings
        check_argv("command" if request.argv is None else "argv", argv, limits)
        cwd = request.cwd if request.cwd is not None else (settings.cwd or ".")
        check_cwd(cwd, allow_absolute=limits.allow_absolute_cwd)
        env = {**settings.env, **request.env}
        check_variables("env", env, limits.max_env_bytes)
        timeout_s, max_bytes, tty = request.timeout_s, request.output.max_bytes, request.tty
        return RunOrder(
            exec_id=exec_id,
            session=session.name,
            argv=argv,
            cwd=cwd,
            env={**(_QUIET if tty is None else _TERMINAL), **env},
            stdin=stdin_bytes(request, limits),
            timeout_s=limits.timeout_s if timeout_s is None else timeout_s,
            kill_grace_s=request.kill_grace_s,
            max_output_bytes=limits.output_bytes if max_bytes is None else max_bytes,
            merges_output=request.output.merge,
            limits=self._resources(session, request),
            cpu_weight=max(request.cpu, 0.05),
            keeps_state=request.state == "env_cwd",
            keeps_stdin=request.stdin_open or tty is not None,
            tty=None if tty is None else TerminalSize(tty.cols, tty.rows),
            keeps_children=request.on_exit == "keep",
            may_start_outside=limits.allow_absolute_cwd,
        )

    def _resources(self, session: Session, request: ExecRequest) -> ResourceLimits:
        asked: LimitsRequest = session.settings.limits if request.limits is None else request.limits
        check_limits("limits", asked, session.host, self._hosts.get(session.host).client.capabilities)
        return ResourceLimits(
            memory_mb=asked.memory_mb, pids=asked.pids, fsize_mb=asked.fsize_mb, cpu_max=asked.cpu_max
        )


def _argv_and_text(request: ExecRequest) -> tuple[tuple[str, ...], str]:
    """What to run, and the text that a tool call would name it by."""
    if request.command is not None:
        return (*request.shell.split(), request.command), request.command
    assert request.argv is not None
    return tuple(request.argv), command_text(request.argv)

"""``gwsh``: a ``$SHELL`` whose commands are admitted by the gateway, or run by it.

Owns the order of decisions: whether this is under way already, which mode, what to do when the gateway does
not answer; and the words to the user, which all go to stderr. Exit code 125 means that the command was not
run.
"""

from __future__ import annotations

import hashlib
import os
import signal
import stat
import sys

from gateway.shims import leased_command, local_shell, settings, shell_words
from gateway.shims.calls import GatewayFault
from gateway.shims.identity import labels, session_name
from gateway.shims.lease import Lease
from gateway.tool_signature import command_signature

EXIT_NOT_RUN = 125
"""As docker answers when the fault is not the command's."""
_SHELL = "MARS_GWSH_SHELL"
_MODE = "MARS_GWSH_MODE"
_ON_FAULT = "MARS_GWSH_ON_FAULT"
_QUEUE = "MARS_GWSH_QUEUE_S"
_TIMEOUT = "MARS_GWSH_TIMEOUT_S"
_CPU = "MARS_GWSH_CPU"
_PREFIX = "CLAUDE_CODE_SHELL_PREFIX"
_DEFAULT_QUEUE_S = 20.0
"""Of what agents give a command (30 s and more), so that it has some of it left."""
_TERMINAL_ANSWER_S = 2.0
"""Somebody waits for the keys that he typed."""
_MAX_PROGRAM_CHARS = 64
"""Of ``program`` of a lease."""


def main() -> None:
    local_shell.fill_descriptors()
    if signal.getsignal(signal.SIGINT) is signal.default_int_handler:
        signal.signal(signal.SIGINT, signal.SIG_DFL)
    shell = os.environ.get(_SHELL) or "/bin/bash"
    try:
        code = _run(shell, sys.argv[1:])
    except GatewayFault as fault:
        code = _say(str(fault), EXIT_NOT_RUN)
    except OSError as error:
        code = _say(f"{shell}: {error.strerror}", 127 if isinstance(error, FileNotFoundError) else 126)
    sys.stdout.flush()
    os._exit(code)


def _run(shell: str, arguments: list[str]) -> int:
    environ = os.environ
    words = shell_words.read(arguments, is_prefix=bool(environ.get(_PREFIX)))
    is_under_way = local_shell.COMMAND_MARK in environ or local_shell.EXEC_MARK in environ
    if is_under_way or words.asks_about_itself:
        local_shell.become(shell, words.words)
    mode = settings.choice(environ, _MODE, "lease", "remote")
    if mode == "remote":
        return _remote(words, environ)
    if words.reads_input and not _is_file(0):
        return _interactive(shell, words, environ)
    return _leased(shell, words, environ)


def _remote(words: shell_words.ShellWords, environ: settings.Environment) -> int:
    from gateway.shims import remote_shell

    request: dict[str, object] = {
        "cwd": remote_shell.cwd_of_command(environ, os.getcwd()),
        "env": remote_shell.variables(environ),
        "labels": labels(environ),
        "cpu": settings.number(environ, _CPU, 1.0, least=0.0),
    }
    if _QUEUE in environ:
        request["queue_timeout_s"] = settings.number(environ, _QUEUE, 0.0, least=0.0)
    if _TIMEOUT in environ:
        request["timeout_s"] = settings.number(environ, _TIMEOUT, 0.0, least=0.0)
    session = session_name(environ, os.getppid())
    return remote_shell.run(settings.calls_of(environ), session, words, request)


def _interactive(shell: str, words: shell_words.ShellWords, environ: settings.Environment) -> int:
    """A shell that is told what to run bit by bit: it holds leases while it works."""
    from gateway.shims import interactive

    if os.isatty(0) and not all(map(os.isatty, (1, 2))):
        local_shell.become(
            shell, words.words
        )  # Whoever is at the terminal sees only a part; nothing to admit.
    queue_s = settings.number(environ, _QUEUE, _DEFAULT_QUEUE_S, least=0.0)
    calls = settings.calls_of(environ, answer_s=_TERMINAL_ANSWER_S)
    asking = _ask(None, environ, shell_pid=os.getpid())

    def make_lease(text: bytes | None) -> Lease:
        return Lease(calls, {**asking, **_about(text)}, queue_s)

    return interactive.run(shell, words.words, make_lease, queue_s)


def _leased(shell: str, words: shell_words.ShellWords, environ: settings.Environment) -> int:
    runs_anyway = settings.choice(environ, _ON_FAULT, "run", "fail") == "run"
    held = Lease(
        settings.calls_of(environ),
        _ask(words.command, environ),
        settings.number(environ, _QUEUE, _DEFAULT_QUEUE_S, least=0.0),
    )
    try:
        return leased_command.run(shell, words.words, held)
    except GatewayFault:
        if runs_anyway:
            local_shell.become(shell, words.words)
        raise


def _ask(
    command: str | None, environ: settings.Environment, shell_pid: int | None = None
) -> dict[str, object]:
    return {
        "session": session_name(environ, os.getppid(), shell_pid=shell_pid),
        "cpu": settings.number(environ, _CPU, 1.0, least=0.0),
        "labels": labels(environ),
        **_about(None if command is None else os.fsencode(command)),
    }


def _about(command: bytes | None) -> dict[str, object]:
    """What the gateway learns of a command: never its text."""
    if command is None:
        return {}
    about: dict[str, object] = {"command_sha256": hashlib.sha256(command).hexdigest()}
    signature = command_signature(command.decode(errors="replace"))
    if signature is not None and len(signature) <= _MAX_PROGRAM_CHARS:
        about["program"] = signature
    return about


def _is_file(fd: int) -> bool:
    """A script that is there as a whole, /dev/null, or nothing at all."""
    try:
        mode = os.fstat(fd).st_mode
    except OSError:
        return True
    return stat.S_ISREG(mode) or (stat.S_ISCHR(mode) and not os.isatty(fd))


def _say(text: str, code: int) -> int:
    sys.stderr.write(f"gwsh: {text}\n")
    return code

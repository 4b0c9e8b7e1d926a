"""``mars-gateway`` as a client: ``exec``, ``cp``, ``hosts``, ``drain``.

Owns the command line, exit codes and messages to people. How a command is followed, ``remote_command`` knows.
"""

import asyncio
import os
import shlex
import sys
from typing import Annotated

from cyclopts import App, Parameter

from gateway.client import GatewayClient, GatewayError
from gateway.config import TOKEN_ENV, URL_ENV
from gateway.file_copy import copy
from gateway.local_ends import ProcessEnds, terminal_size
from gateway.protocol import (
    EXIT_CANCELLED,
    EXIT_NOT_EXECUTABLE,
    EXIT_NOT_FOUND,
    ExecRequest,
    ExecStatus,
    HostStatus,
    OutputRequest,
    TtyRequest,
)
from gateway.remote_command import RemoteCommand

_EXIT_UNKNOWN = 125
"""As ``docker run`` answers when the fault is not the command's."""

GatewayUrl = Annotated[str, Parameter(env_var=URL_ENV, help="URL of the gateway.")]
_DEFAULT_URL = "http://127.0.0.1:8090"


def add_client_commands(app: App) -> None:
    app.command(_exec, name="exec")
    app.command(_copy, name="cp")
    app.command(_hosts, name="hosts")
    app.command(_drain, name="drain")


def _exec(
    *argv: Annotated[str, Parameter(allow_leading_hyphen=True)],
    session: str,
    gateway: GatewayUrl = _DEFAULT_URL,
    stdin: bool = False,
    tty: bool = False,
    state: bool = False,
    timeout_s: float | None = None,
    cpu: float = 1.0,
    cwd: str | None = None,
    merge: bool = False,
    cancel_on_disconnect: bool = False,
) -> int:
    """Run a command through a gateway as if it ran here: output as it comes, its exit code.

    The token, if the gateway wants one, is in MARS_GATEWAY_TOKEN. Ctrl-C is sent to the command; a second
    one, and SIGTERM, cancel it.

    Parameters
    ----------
    argv
        Program and arguments, after `--`. No shell: say `-- bash -c '...'` for one.
    session
        Session to run it in; created if it is not there.
    stdin
        Pass standard input on, to its end.
    tty
        Run it on a terminal, of the size of this one. Passes input on, too.
    state
        Begin with the variables and directory that the last command with --state left. The arguments are text
        for bash.
    timeout_s
        End it after so many seconds of running.
    cpu
        CPU slots that it takes.
    cwd
        Directory to start in, relative to the workspace of the session.
    merge
        Write stderr into stdout, in order.
    cancel_on_disconnect
        End it when this process is gone for ten seconds, even if it was killed. Otherwise it goes on.
    """
    if not argv:
        raise GatewayError("there is no command; say it after --")
    text = argv[0] if len(argv) == 1 else shlex.join(argv)
    request = ExecRequest(
        command=text if state else None,
        argv=None if state else list(argv),
        state="env_cwd" if state else "none",
        stdin_open=stdin or tty,
        tty=TtyRequest(*terminal_size()) if tty else None,
        timeout_s=timeout_s,
        cpu=cpu,
        cwd=cwd,
        output=OutputRequest(merge=merge),
    )
    try:
        status = asyncio.run(_run(gateway, session, request, beats=cancel_on_disconnect))
    except asyncio.CancelledError:
        return EXIT_CANCELLED
    return _exit_code(status, argv[0])


def _copy(source: str, target: str, *, gateway: GatewayUrl = _DEFAULT_URL) -> None:
    """Copy a file or a directory into a session's workspace, or out of it.

    Parameters
    ----------
    source
        PATH, or SESSION:PATH.
    target
        The other one of the two. A directory becomes this one.
    """
    asyncio.run(_copied(gateway, source, target))


def _hosts(*, gateway: GatewayUrl = _DEFAULT_URL) -> None:
    """Show the hosts, one a line."""
    for host in asyncio.run(_all_hosts(gateway)):
        sys.stdout.write(_line(host) + "\n")


def _drain(host: str, *, gateway: GatewayUrl = _DEFAULT_URL, end: bool = False) -> None:
    """Start nothing new on a host; what runs there goes on.

    Parameters
    ----------
    host
        Its name.
    end
        Take it back into service.
    """
    sys.stdout.write(_line(asyncio.run(_drained(gateway, host, is_draining=not end))) + "\n")


def _client(url: str) -> GatewayClient:
    return GatewayClient(url, os.environ.get(TOKEN_ENV))


async def _run(url: str, session: str, request: ExecRequest, *, beats: bool) -> ExecStatus:
    ends = ProcessEnds()
    async with _client(url) as client:
        with ends.opened(has_terminal=request.tty is not None):
            return await RemoteCommand(client, ends).run(session, request, beats=beats)


async def _copied(url: str, source: str, target: str) -> None:
    async with _client(url) as client:
        await copy(client, source, target)


def _exit_code(status: ExecStatus, program: str) -> int:
    if status.exit_code is None:
        sys.stderr.write(f"mars-gateway: {status.state}: {status.reason}\n")
        return _EXIT_UNKNOWN
    if status.exit_code in (EXIT_NOT_EXECUTABLE, EXIT_NOT_FOUND) and status.reason is not None:
        sys.stderr.write(f"mars-gateway: {program}: {status.reason}; for a shell, say -- bash -c '...'\n")
    return status.exit_code


async def _all_hosts(url: str) -> list[HostStatus]:
    async with _client(url) as client:
        return await client.hosts()


async def _drained(url: str, host: str, *, is_draining: bool) -> HostStatus:
    async with _client(url) as client:
        return await client.drain(host, is_draining=is_draining)


def _line(host: HostStatus) -> str:
    state = "draining" if host.is_draining else host.state
    return (
        f"{host.name} {state}: {host.running} running, {host.queued} queued, {host.sessions} sessions,"
        f" {host.slots_used:g} of {host.slots:g} slots"
    )

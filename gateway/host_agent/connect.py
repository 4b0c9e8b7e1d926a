"""The way from a pair of pipes to the agent: what runs at the far end of an SSH channel.

Owns starting the agent if none answers, and copying both ways until both have ended. Nothing of asyncio is
imported here: this starts once per connection, and the time that takes is somebody's wait.
"""

from __future__ import annotations

import contextlib
import os
import socket
import subprocess
import sys
import threading
import time
from pathlib import Path

from gateway.host_agent import program
from gateway.host_agent.unix_socket import try_connect

START_LIMIT_S = 15.0
"""From the first try to an agent that answers: Python on a loaded host takes seconds to start."""
RETRY_S = 0.02
COPY_BYTES = 256 << 10


class NoAgent(Exception):
    """None answers and none could be started; the message says why."""


def connect(directory: Path) -> int:
    """Returns the exit code. Standard input and output are the connection; errors go to standard error."""
    try:
        agent = connected(directory)
    except (NoAgent, OSError) as error:
        sys.stderr.write(f"no agent in {directory}: {error}\n")
        return 1
    copy(agent, 0, 1)
    return 0


def connected(directory: Path) -> socket.socket:
    """To the agent of this directory, which is started if none answers. Raises NoAgent, OSError."""
    agent = try_connect(directory)
    if agent is not None:
        return agent
    started = start(directory)
    give_up_at_s = time.monotonic() + START_LIMIT_S
    while (agent := try_connect(directory)) is None:
        if time.monotonic() > give_up_at_s:
            raise NoAgent(f"it did not answer within {START_LIMIT_S:.0f} s; {program.LOG} may say why")
        if started.poll() is not None:
            # Another that was started at the same time has the lock, or one that was ending had it.
            if started.returncode != program.EXIT_TAKEN:
                raise NoAgent(f"it ended with exit code {started.returncode}; {program.LOG} may say why")
            started = start(directory)
        time.sleep(RETRY_S)
    return agent


def start(directory: Path) -> subprocess.Popen[bytes]:
    """An agent of its own session, which outlives us and our terminal."""
    directory.mkdir(mode=0o700, parents=True, exist_ok=True)
    flags = os.O_WRONLY | os.O_CREAT | os.O_APPEND | os.O_CLOEXEC
    log = os.open(directory / program.LOG, flags, 0o600)
    try:
        return subprocess.Popen(
            [*program.command(), "serve", str(directory)],
            env=program.environment(),
            cwd="/",
            stdin=subprocess.DEVNULL,
            stdout=log,
            stderr=log,
            start_new_session=True,
        )
    finally:
        os.close(log)


def copy(agent: socket.socket, source: int, sink: int) -> None:
    """Both ways. It is over when the agent has sent its last and the sink has all of it, or is gone."""
    threading.Thread(target=_send, args=(source, agent), daemon=True).start()
    with contextlib.suppress(OSError):
        while data := agent.recv(COPY_BYTES):
            _write(sink, data)
    with contextlib.suppress(OSError):
        agent.shutdown(socket.SHUT_RDWR)


def _send(source: int, agent: socket.socket) -> None:
    with contextlib.suppress(OSError):
        while data := os.read(source, COPY_BYTES):
            agent.sendall(data)
    with contextlib.suppress(OSError):
        agent.shutdown(socket.SHUT_WR)


def _write(sink: int, data: bytes) -> None:
    rest = memoryview(data)
    while rest:
        rest = rest[os.write(sink, rest) :]

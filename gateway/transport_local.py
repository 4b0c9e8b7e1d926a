"""The way to the agent on the gateway's own host: a Unix socket.

Owns starting that agent when none answers. It must not know frames.

Theory of operation. An agent of a directory that is kept runs on its own: it is started in a session of its
own, and outlives us, so that a gateway that is started again finds its commands. An agent of a directory that
goes with us is bound to a pipe of ours: it ends its commands and itself when we end, however we end.
"""

import asyncio
import contextlib
import os
import subprocess
import sys
from pathlib import Path

from gateway.agent_bundle import AgentBundle
from gateway.agent_program import agent_environment, put_agent
from gateway.host_agent.program import EXIT_TAKEN, LOG, SOCKET
from gateway.link import ConnectError
from gateway.stream_channel import StreamChannel

_READ_AHEAD_BYTES = 256 << 10
"""Of answers; one of a megabyte is put together from a few pieces."""
_RETRY_S = 0.02
_END_S = 15.0
"""For an agent whose pipe we closed: it gives its commands no grace."""


class LocalTransport:
    """A ``link.Transport``."""

    def __init__(self, directory: Path, bundle: AgentBundle, *, is_private: bool = False) -> None:
        """``is_private``: the directory and all that runs in it goes with us."""
        self._directory = directory.absolute()
        self._bundle = bundle
        self._is_private = is_private
        self._bound: asyncio.subprocess.Process | None = None

    async def connect(self) -> StreamChannel:
        try:
            program = put_agent(self._bundle, self._directory)
            channel = await self._try_connect()
            if channel is None:
                channel = await self._start_and_connect(program)
        except OSError as error:
            raise ConnectError(f"{self._directory}: {error.strerror or error}") from error
        return channel

    async def close(self) -> None:
        bound = self._bound
        if bound is None:
            return
        assert bound.stdin is not None
        bound.stdin.close()
        try:
            async with asyncio.timeout(_END_S):
                await bound.wait()
        except TimeoutError:
            bound.kill()
            await bound.wait()
        self._bound = None  # Not before: who is cancelled here closes again.

    async def _try_connect(self) -> StreamChannel | None:
        """None: nobody listens."""
        try:
            # Through a descriptor: a socket's own path may have 107 bytes only.
            fd = os.open(self._directory, os.O_PATH | os.O_DIRECTORY | os.O_CLOEXEC)
        except FileNotFoundError:
            return None
        try:
            path = f"/proc/self/fd/{fd}/{SOCKET}"
            return StreamChannel(*await asyncio.open_unix_connection(path, limit=_READ_AHEAD_BYTES))
        except (FileNotFoundError, ConnectionRefusedError):
            return None
        finally:
            os.close(fd)

    async def _start_and_connect(self, program: Path) -> StreamChannel:
        """Whoever calls bounds the time."""
        if not self._is_private:
            await self._start_free(program)
        while (channel := await self._try_connect()) is None:
            if self._is_private:
                await self._see_to_bound(program)
            await asyncio.sleep(_RETRY_S)
        return channel

    async def _see_to_bound(self, program: Path) -> None:
        """An agent of before that is still ending has the directory (EXIT_TAKEN): ours comes after it."""
        code = None if self._bound is None else self._bound.returncode
        if code not in (None, EXIT_TAKEN):
            self._bound = None
            raise ConnectError(f"the agent ended with exit code {code}; {self._directory / LOG} may say why")
        if self._bound is None or code == EXIT_TAKEN:
            await self._start_bound(program)

    async def _start_bound(self, program: Path) -> None:
        log = os.open(self._directory / LOG, os.O_WRONLY | os.O_CREAT | os.O_APPEND | os.O_CLOEXEC, 0o600)
        try:
            self._bound = await self._spawn(
                program, "serve", "--until-eof", stdin=subprocess.PIPE, output=log
            )
        finally:
            os.close(log)

    async def _start_free(self, program: Path) -> None:
        """By its own ``connect`` for a caller who has nothing to say: what it leaves is an agent that is
        nobody's child."""
        connect = await self._spawn(program, "connect", stdin=subprocess.DEVNULL, output=subprocess.PIPE)
        try:
            said, _ = await connect.communicate()
        except asyncio.CancelledError:
            with contextlib.suppress(ProcessLookupError):
                connect.kill()
            await connect.wait()
            raise
        if connect.returncode != 0:
            reason = said.decode(errors="replace").strip().rpartition("\n")[2]
            raise ConnectError(f"the agent could not be started: {reason[:300]}")

    async def _spawn(
        self, program: Path, command: str, *flags: str, stdin: int, output: int
    ) -> asyncio.subprocess.Process:
        """Isolated (-I): what lies in our working directory or PYTHONPATH is none of its business."""
        return await asyncio.create_subprocess_exec(
            sys.executable,
            "-I",
            str(program),
            command,
            *flags,
            str(self._directory),
            cwd="/",
            env=agent_environment(os.environ),
            stdin=stdin,
            stdout=output,
            stderr=subprocess.STDOUT,
            start_new_session=True,
        )

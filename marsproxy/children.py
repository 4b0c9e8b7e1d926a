"""Programs that the proxy starts beside itself, and stops again whatever happens."""

import asyncio
import re
import sys
from asyncio.subprocess import PIPE, Process

READY = re.compile(rb"ready on (https?://\S+)")
"""What each program of this project prints, once, when it listens."""
START_TIMEOUT_S = 60.0
"""A cold start of Python on a busy two-core machine takes a few seconds."""
STOP_TIMEOUT_S = 15.0


class ChildFailed(Exception):
    """A program did not come up; the message says which, and what it printed last."""


class Child:
    """One of this project's servers in a process of its own.

    Args:
        module: run as ``python -m module``.
    """

    def __init__(self, module: str, *arguments: str) -> None:
        self._name = " ".join((module, *arguments[:1]))
        self._command = (sys.executable, "-m", module, *arguments)
        self._process: Process | None = None

    async def start(self) -> str:
        """Start it; returns its URL once it listens.

        Raises:
            ChildFailed: it ended, or did not say that it was ready in time.
        """
        self._process = await asyncio.create_subprocess_exec(*self._command, stdout=PIPE)
        try:
            async with asyncio.timeout(START_TIMEOUT_S):
                return await self._read_url(self._process)
        except BaseException as exc:
            await self.stop()
            if isinstance(exc, TimeoutError):
                raise ChildFailed(f"{self._name} was not ready within {START_TIMEOUT_S:.0f} s") from exc
            raise

    async def _read_url(self, process: Process) -> str:
        assert process.stdout is not None, "stdout is a pipe"
        last = b""
        async for line in process.stdout:
            if found := READY.search(line):
                return found[1].decode()
            last = line
        raise ChildFailed(f"{self._name} ended: {last.decode(errors='replace').strip()}")

    async def stop(self) -> None:
        """Ask it to end; end it by force if it does not."""
        process = self._process
        if process is None or process.returncode is not None:
            return
        process.terminate()
        try:
            async with asyncio.timeout(STOP_TIMEOUT_S):
                await process.wait()
        except TimeoutError:
            process.kill()
            await process.wait()

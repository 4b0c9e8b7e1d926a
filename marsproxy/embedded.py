"""``--backend embedded``: the engine model as a child process, for trying the proxy without a GPU."""

import asyncio
import re
import sys
from asyncio.subprocess import PIPE, Process

READY = re.compile(rb"ready on (http://\S+)")
START_TIMEOUT_S = 30.0
STOP_TIMEOUT_S = 5.0


class EngineFailed(Exception):
    """The embedded engine did not come up; the message says what it printed last."""


class EmbeddedEngine:
    """Runs ``loadgen engine`` on a free port and stops it again."""

    def __init__(self, arguments: tuple[str, ...] = ()) -> None:
        self._arguments = arguments
        self._process: Process | None = None

    async def start(self) -> str:
        """Start it; returns its URL once it listens.

        Raises:
            EngineFailed: it ended, or did not say that it was ready in time.
        """
        command = (sys.executable, "-m", "loadgen", "engine", "--port", "0", *self._arguments)
        self._process = await asyncio.create_subprocess_exec(*command, stdout=PIPE)
        try:
            async with asyncio.timeout(START_TIMEOUT_S):
                return await self._read_url(self._process)
        except TimeoutError as exc:
            await self.stop()
            raise EngineFailed(f"the embedded engine was not ready within {START_TIMEOUT_S:.0f} s") from exc

    async def _read_url(self, process: Process) -> str:
        assert process.stdout is not None, "stdout is a pipe"
        last = b""
        async for line in process.stdout:
            if found := READY.search(line):
                return found[1].decode()
            last = line
        raise EngineFailed(f"the embedded engine ended: {last.decode(errors='replace').strip()}")

    async def stop(self) -> None:
        """End it, by force if it does not go."""
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

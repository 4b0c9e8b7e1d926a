"""``marsproxy serve`` as a user starts it, and as a service manager ends it.

Owns one process and what it started. It must not know what a test asks of it.
"""

import asyncio
import os
import signal
import sys
from asyncio.subprocess import PIPE, Process
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager, suppress
from dataclasses import dataclass
from pathlib import Path

from tests.gateway_live.processes import descendants

ROOT = Path(__file__).parents[2]
HANG_S = 60.0
"""Several cold starts of Python on a busy machine; a hang fails instead of waiting for the runner's limit."""


@dataclass
class ProxyProcess:
    process: Process
    url: str

    @property
    def workers(self) -> list[int]:
        return [
            pid for pid in descendants(self.process.pid) if b"marsproxy.workers.worker" in _command_line(pid)
        ]

    def signal(self, number: signal.Signals) -> None:
        self.process.send_signal(number)

    async def ended(self) -> int:
        """Its exit code."""
        async with asyncio.timeout(HANG_S):
            return await self.process.wait()


@asynccontextmanager
async def proxy_process(*arguments: str, log: Path) -> AsyncIterator[ProxyProcess]:
    with log.open("ab") as stderr:
        process = await asyncio.create_subprocess_exec(
            *(sys.executable, "-m", "marsproxy", "serve", "--host", "127.0.0.1", *arguments),
            stdout=PIPE,
            stderr=stderr,
            env={"PATH": os.environ["PATH"], "PYTHONPATH": str(ROOT)},
        )
    left: list[int] = []
    try:
        assert process.stdout is not None
        async with asyncio.timeout(HANG_S):
            line = (await process.stdout.readline()).decode()
        assert line.startswith("marsproxy ready on "), _said(log)
        yield ProxyProcess(process, line.split()[-1])
    finally:
        left = descendants(process.pid)
        for pid in [process.pid, *left]:
            with suppress(ProcessLookupError):
                os.kill(pid, signal.SIGKILL)
        await process.wait()


async def until_gone(pids: list[int]) -> None:
    async with asyncio.timeout(HANG_S):
        while any(_command_line(pid) for pid in pids):  # noqa: ASYNC110 (nobody tells of others' ends)
            await asyncio.sleep(0.05)


def _said(log: Path) -> str:
    return log.read_text()


def _command_line(pid: int) -> bytes:
    """Empty for a process that has ended."""
    try:
        return Path(f"/proc/{pid}/cmdline").read_bytes()
    except OSError:
        return b""

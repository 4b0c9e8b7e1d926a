"""The project's commands and a Redis as processes: started, killed, paused, started again.

Owns processes, their logs and what /proc says of them. It must not know why anybody is killed.
"""

import asyncio
import os
import signal
import sys
from collections.abc import Sequence
from contextlib import suppress
from dataclasses import dataclass, field
from pathlib import Path

ROOT = Path(__file__).parents[2]
HANG_S = 60.0
"""Nothing here takes that long; what does fails."""
STOP_S = 15.0
"""For a program whose clients are gone already."""

_PAGE_BYTES = os.sysconf("SC_PAGE_SIZE")
_TICKS_PER_S = os.sysconf("SC_CLK_TCK")


def module(*words: str) -> list[str]:
    """The command line of one of the project's own commands."""
    return [sys.executable, "-m", *words]


@dataclass
class Program:
    """One process at a time. What it prints when it is ready names the address that it took."""

    name: str
    command: Sequence[str]
    log: Path
    ready: str
    """In the line that says that it is ready, which ends with its URL."""
    inside: Sequence[str] = ()
    """What the command line is put behind, as ``ip netns exec NAME``."""
    url: str = ""
    starts: int = 0
    did_not_stop: bool = False
    """It was asked to, and had to be killed."""
    cpu_s_before: float = 0.0
    """Of processes that have ended."""
    _process: asyncio.subprocess.Process | None = field(default=None, repr=False)

    @property
    def pid(self) -> int:
        assert self._process is not None, f"{self.name} was never started"
        return self._process.pid

    @property
    def port(self) -> int:
        return int(self.url.rsplit(":", 1)[1])

    @property
    def host(self) -> str:
        return self.url.rpartition("//")[2].rsplit(":", 1)[0]

    @property
    def is_running(self) -> bool:
        return self._process is not None and self._process.returncode is None

    @property
    def cpu_s(self) -> float:
        """User and system time of all its processes so far."""
        return self.cpu_s_before + self._cpu_s_of_process()

    async def start(self) -> None:
        assert not self.is_running, f"{self.name} runs"
        self.starts += 1
        with self.log.open("ab") as log:
            said_before = log.tell()
            self._process = await asyncio.create_subprocess_exec(
                *self.inside,
                *self.command,
                stdin=asyncio.subprocess.DEVNULL,
                stdout=log,
                stderr=log,
                cwd=self.log.parent,
                env={"PATH": os.environ["PATH"], "PYTHONPATH": str(ROOT)},
            )
        async with asyncio.timeout(HANG_S):
            self.url = await self._until_ready(said_before)

    async def kill(self) -> None:
        """As the kernel does it for want of memory: no word, no clean-up."""
        await self._end(signal.SIGKILL)

    async def stop(self) -> None:
        """As an operator does it; what does not end is killed, and ``errors`` says so."""
        await self._end(signal.SIGTERM)

    def pause(self) -> None:
        """It is there, and does nothing: a virtual machine that is moved, a long swap."""
        os.kill(self.pid, signal.SIGSTOP)

    def resume(self) -> None:
        os.kill(self.pid, signal.SIGCONT)

    def resident_bytes(self) -> int | None:
        """None when it does not run."""
        text = self._proc("statm")
        return int(text.split()[1]) * _PAGE_BYTES if text else None

    def open_files(self) -> int | None:
        if not self.is_running:
            return None
        with suppress(OSError):
            return sum(1 for _ in Path(f"/proc/{self.pid}/fd").iterdir())
        return None

    def errors(self) -> list[str]:
        """Lines of its log that begin a traceback or call themselves an error; that it did not end."""
        if not self.log.exists():
            return []
        lines = self.log.read_text(errors="replace").splitlines()
        stubborn = [f"did not end within {STOP_S:.0f} s of being asked to"] if self.did_not_stop else []
        return stubborn + [line for line in lines if line.startswith("Traceback") or " ERROR " in line]

    async def _until_ready(self, said_before: int) -> str:
        while self.is_running:
            said = self.log.read_bytes()[said_before:].decode(errors="replace")
            for line in said.splitlines(keepends=True):
                if self.ready in line and line.endswith("\n"):
                    return line.split()[-1]
            await asyncio.sleep(0.05)
        raise AssertionError(f"{self.name} ended before it was ready: {self.log.read_text()[-2000:]}")

    async def _end(self, number: signal.Signals) -> None:
        if self._process is None or self._process.returncode is not None:
            return
        self.cpu_s_before += self._cpu_s_of_process()
        with suppress(ProcessLookupError):
            self._process.send_signal(number)
        try:
            async with asyncio.timeout(STOP_S):
                await self._process.wait()
        except TimeoutError:
            self.did_not_stop = True
            self._process.kill()
            await self._process.wait()

    def _cpu_s_of_process(self) -> float:
        fields = self._proc("stat").rpartition(") ")[2].split()
        return (int(fields[11]) + int(fields[12])) / _TICKS_PER_S if fields else 0.0

    def _proc(self, name: str) -> str:
        if not self.is_running:
            return ""
        try:
            return Path(f"/proc/{self.pid}/{name}").read_text(errors="replace")
        except OSError:  # gone meanwhile
            return ""

"""A framework in its own environment, as a child process that plays agents.

Owns the child's life and the lines to and from it. The modules of ``crew`` reach it as one zip file, so that
the framework's environment sees them and nothing else that is installed beside this program.
"""

import asyncio
import contextlib
import os
import signal
import sys
import zipfile
from asyncio.subprocess import PIPE, Process
from collections.abc import AsyncIterator, Mapping
from contextlib import asynccontextmanager
from pathlib import Path

from loadgen.agents.crew.orders import Ended, Loaded, Order, read_report
from loadgen.errors import LoadgenError

LOAD_TIMEOUT_S = 180.0
"""Frameworks import for five to twenty seconds on an idle core."""
STOP_TIMEOUT_S = 10.0
LINE_BYTES = 1 << 20
LOG_LINES = 15
START = (
    "import sys,runpy;sys.path.insert(0,sys.argv.pop(1));"
    "runpy.run_module('loadgen.agents.crew',run_name='__main__',alter_sys=True)"
)
NOT_INHERITED = ("PYTHONPATH", "PYTHONHOME", "VIRTUAL_ENV", "PYTHONSAFEPATH")
"""They would point the framework's Python at our packages."""
SETTINGS = {
    # Nothing but the target is to be asked: no price list, no announcements, no traces.
    "LITELLM_LOCAL_MODEL_COST_MAP": "True",
    "OPENHANDS_SUPPRESS_BANNER": "1",
    "MSWEA_SILENT_STARTUP": "1",
    "MSWEA_COST_TRACKING": "ignore_errors",
    "LOG_LEVEL": "ERROR",
}


class Crew:
    """One process of the framework."""

    def __init__(self, process: Process, log: Path) -> None:
        self._process, self._log = process, log
        self._agents: dict[str, asyncio.Future[str | None]] = {}
        self.version = ""

    async def load(self) -> None:
        """Raises LoadgenError: the framework is not there, or cannot be imported."""
        try:
            async with asyncio.timeout(LOAD_TIMEOUT_S):
                report = await self._report()
        except TimeoutError as exc:
            raise LoadgenError(f"the framework was not loaded within {LOAD_TIMEOUT_S:.0f} s") from exc
        if not isinstance(report, Loaded):
            raise LoadgenError(f"the framework did not start:\n{self._last_lines()}")
        self.version = report.version

    async def play(self, order: Order) -> str | None:
        """Why the agent did not do its task; None if it says that it did."""
        assert self._process.stdin is not None
        over = asyncio.get_running_loop().create_future()
        self._agents[order.session] = over
        try:
            self._process.stdin.write(order.line().encode())
            return str(error) if (error := await over) is not None else None
        finally:
            self._agents.pop(order.session, None)

    async def watch(self) -> None:
        """Until the process ends; agents that are not over then have failed."""
        while (report := await self._report()) is not None:
            if isinstance(report, Ended) and (over := self._agents.get(report.session)) is not None:
                over.set_result(report.error)
        for over in self._agents.values():
            if not over.done():
                over.set_result("the framework's process ended")

    async def _report(self) -> Loaded | Ended | None:
        assert self._process.stdout is not None
        async for line in self._process.stdout:
            if (report := read_report(line.decode(errors="replace"))) is not None:
                return report
        return None

    async def stop(self) -> None:
        """With everything that it started: shells of agents end with their terminals."""
        with contextlib.suppress(ProcessLookupError):
            os.killpg(self._process.pid, signal.SIGTERM)
        try:
            async with asyncio.timeout(STOP_TIMEOUT_S):
                await self._process.wait()
        except TimeoutError:
            with contextlib.suppress(ProcessLookupError):
                os.killpg(self._process.pid, signal.SIGKILL)
            await self._process.wait()

    def _last_lines(self) -> str:
        lines = self._log.read_text(encoding="utf-8", errors="replace").splitlines()
        return "\n".join(lines[-LOG_LINES:])


@asynccontextmanager
async def open_crew(framework: str, python: Path, home: Path, log: Path) -> AsyncIterator[Crew]:
    """``home`` is the framework's home directory, so that nobody's own settings and skills count."""
    program = home / "crew.zip"
    bundle(program)
    with log.open("wb") as errors:
        try:
            process = await asyncio.create_subprocess_exec(
                *(str(python), "-c", START, str(program), framework),
                stdin=PIPE,
                stdout=PIPE,
                stderr=errors,
                cwd=home,
                env=environment(os.environ, home),
                limit=LINE_BYTES,
                start_new_session=True,
            )
        except OSError as exc:
            raise LoadgenError(f"--python {str(python)!r} cannot be run: {exc.strerror}") from exc
    crew = Crew(process, log)
    try:
        await crew.load()
        yield crew
    finally:
        await crew.stop()


def environment(inherited: Mapping[str, str], home: Path) -> dict[str, str]:
    kept = {name: value for name, value in inherited.items() if name not in NOT_INHERITED}
    # `python3` may be a script that looks for one, and takes longer than the command: ours goes first.
    path = os.pathsep.join([str(Path(sys.executable).parent), kept.get("PATH", os.defpath)])
    return {**kept, **SETTINGS, "HOME": str(home), "PATH": path}


def bundle(target: Path) -> None:
    """The modules that run beside the framework, under their own names."""
    here = Path(__file__).parent / "crew"
    with zipfile.ZipFile(target, "w") as file:
        for name in ("loadgen/__init__.py", "loadgen/agents/__init__.py"):
            file.writestr(name, "")
        for module in sorted(here.glob("*.py")):
            file.write(module, f"loadgen/agents/crew/{module.name}")

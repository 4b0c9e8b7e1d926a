"""Frameworks' programs as child processes, with an environment in which they find nothing of this machine's.

Owns starting, waiting and ending; what a program does and what its output means are the framework's affair.
"""

import asyncio
import contextlib
import os
import shutil
import signal
import sys
from asyncio.subprocess import DEVNULL
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import BinaryIO

LOG = "output"
PROGRAM_TIMEOUT_S = 480.0
"""A hang, not a slow machine: eight agents at once take half a minute on two idle cores."""


@dataclass(frozen=True, slots=True)
class Ended:
    code: int | None
    """None: it took too long and was killed."""
    output: str
    """Both streams."""

    @property
    def failure(self) -> str | None:
        return None if self.code == 0 else f"ended with {self.code}:\n{self.output[-3000:]}"


def shim(name: str) -> str:
    """One of our commands that frameworks start in place of another program: beside our Python."""
    found = shutil.which(name, path=os.pathsep.join([str(Path(sys.executable).parent), os.environ["PATH"]]))
    assert found is not None, f"{name} is not installed beside {sys.executable}"
    return found


async def run_program(
    command: Sequence[str],
    folder: Path,
    environment: Mapping[str, str],
    timeout_s: float = PROGRAM_TIMEOUT_S,
) -> Ended:
    """To its end, with ``folder`` for its home. What it leaves running is killed with it."""
    with _log_in(folder) as log:
        process = await asyncio.create_subprocess_exec(
            *command,
            stdin=DEVNULL,
            stdout=log,
            stderr=log,
            cwd=folder,
            env=_environment(folder, environment),
            start_new_session=True,
        )
    code = None
    try:
        async with asyncio.timeout(timeout_s):
            code = await process.wait()
    except TimeoutError:
        pass  # the code says so
    finally:
        with contextlib.suppress(ProcessLookupError):
            os.killpg(process.pid, signal.SIGKILL)
        await process.wait()
    return Ended(code, _read(folder))


def _log_in(folder: Path) -> BinaryIO:
    folder.mkdir(parents=True, exist_ok=True)
    return (folder / LOG).open("wb")


def _read(folder: Path) -> str:
    return (folder / LOG).read_text(errors="replace")


def _environment(folder: Path, added: Mapping[str, str]) -> dict[str, str]:
    own = {
        "PATH": os.environ["PATH"],
        "HOME": str(folder),
        "TMPDIR": os.environ.get("TMPDIR", "/tmp"),
        "LANG": "C.UTF-8",
        "OPENAI_API_KEY": "unused",
        "LITELLM_LOCAL_MODEL_COST_MAP": "True",  # else it asks the Internet, and waits
    }
    return {**own, **added}

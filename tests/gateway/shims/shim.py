"""Shims as agents start them: programs with an environment, and what the gateway says of them.

Owns starting. It must not know what the tests ask of them.
"""

import contextlib
import os
import random
import signal
import subprocess
from collections.abc import Iterator
from dataclasses import dataclass, field
from pathlib import Path

from tests.gateway_live.processes import HANG_S, command_name, named

SLOTS = 64
SLOTS_OF_ONE = 20
"""What each command of ``gwsh`` takes here. A host counts cores that others are busy with as slots less; with
so many slots that changes nothing: three commands fit, whatever else this machine does."""
ROOM = 3


@dataclass
class Shims:
    programs: Path
    url: str
    directory: Path
    """Where they are started, and their HOME."""
    settings: dict[str, str] = field(default_factory=dict)

    @property
    def gwsh(self) -> str:
        return str(self.programs / "gwsh")

    @property
    def gw_docker(self) -> str:
        return str(self.programs / "gw-docker")

    @property
    def environment(self) -> dict[str, str]:
        return {
            "PATH": os.environ["PATH"],
            "HOME": str(self.directory),
            "MARS_GATEWAY_URL": self.url,
            "MARS_GWSH_CPU": str(SLOTS_OF_ONE),
            **self.settings,
        }

    def shell(self, *words: str, **options: object) -> "subprocess.CompletedProcess[str]":
        """``gwsh`` to its end."""
        return self._run([self.gwsh, *words], **options)

    def docker(self, *words: str, **options: object) -> "subprocess.CompletedProcess[str]":
        return self._run([self.gw_docker, *words], **options)

    @contextlib.contextmanager
    def started(self, *words: str, **options: object) -> "Iterator[subprocess.Popen[str]]":
        """``gwsh``, as the leader of a group of its own; killed at the end, so that no test waits for it."""
        defaults = {
            "stdin": subprocess.DEVNULL,
            "stdout": subprocess.PIPE,
            "stderr": subprocess.PIPE,
            "text": True,
            "env": self.environment,
            "cwd": self.directory,
            "start_new_session": True,
        }
        with subprocess.Popen([self.gwsh, *words], **{**defaults, **options}) as shim:
            try:
                yield shim
            finally:
                if shim.poll() is None:
                    os.killpg(shim.pid, signal.SIGKILL)

    def _run(self, command: list[str], **options: object) -> "subprocess.CompletedProcess[str]":
        defaults = {"env": self.environment, "cwd": self.directory, "timeout": 2 * HANG_S}
        if "input" not in options:
            defaults["stdin"] = subprocess.DEVNULL
        if "stdout" not in options:
            defaults["capture_output"] = True
        return subprocess.run(command, text=True, **{**defaults, **options})


def unique_seconds() -> str:
    """For a ``sleep`` that no other test has."""
    return f"1000.{random.randrange(10**9):09}"


def sleeping(seconds: str) -> list[int]:
    """Not the shells that were told to."""
    return [pid for pid in named(seconds) if command_name(pid) == "sleep"]

"""``mars-gateway serve`` as a user starts it, ended as users and accidents end it.

Owns one process and its log. It must not know what the tests ask of it.
"""

import os
import signal
import subprocess
import sys
from dataclasses import dataclass, field
from pathlib import Path

from tests.gateway_live.processes import HANG_S

ROOT = Path(__file__).parents[2]
READY = "mars-gateway ready on "


@dataclass
class GatewayProcess:
    """``start`` it again after any end: settings and directories stay, the port does not."""

    directory: Path | None
    """Of its spool; what a restart finds again. None: it takes one that goes with it."""
    log: Path
    arguments: list[str] = field(default_factory=list)
    environment: dict[str, str] = field(default_factory=dict)
    python: Path = Path(sys.executable)
    url: str = ""
    _process: "subprocess.Popen[str] | None" = None

    @property
    def pid(self) -> int:
        assert self._process is not None
        return self._process.pid

    def start(self) -> str:
        command = [str(self.python), "-m", "gateway", "serve", "--port", "0", *self.arguments]
        if self.directory is not None:
            command += ["--spool-dir", str(self.directory)]
        with self.log.open("a") as log:
            self._process = subprocess.Popen(
                command,
                stdin=subprocess.DEVNULL,
                stdout=subprocess.PIPE,
                stderr=log,
                text=True,
                cwd=self.log.parent,
                env={"PATH": os.environ["PATH"], "PYTHONPATH": str(ROOT), **self.environment},
            )
        assert self._process.stdout is not None
        line = self._process.stdout.readline()
        assert line.startswith(READY), self.log.read_text()
        self.url = line.removeprefix(READY).strip()
        return self.url

    def kill(self) -> None:
        """As the kernel does it for want of memory: no word, no clean-up."""
        self._end(signal.SIGKILL)

    def stop(self) -> int:
        """As an operator does it; the exit code."""
        return self._end(signal.SIGTERM)

    def _end(self, number: signal.Signals) -> int:
        process = self._process
        if process is None:
            return 0
        if process.poll() is None:
            process.send_signal(number)
        try:
            return process.wait(HANG_S)
        except subprocess.TimeoutExpired:
            process.kill()
            process.wait()
            raise
        finally:
            assert process.stdout is not None
            process.stdout.close()

"""A real Redis, to be started, stopped, killed and started again."""

import contextlib
import os
import shutil
import signal
import socket
import subprocess
import time
from pathlib import Path


class RedisProcess:
    """
    Args:
        keeps: whether what is in it survives its end.
        also: further arguments.
    """

    def __init__(self, directory: Path, *also: str, keeps: bool = False) -> None:
        directory.mkdir(exist_ok=True)
        with socket.create_server(("127.0.0.1", 0)) as free:
            self.port = free.getsockname()[1]
        self.url = f"redis://127.0.0.1:{self.port}/0"
        kept = ("--appendonly", "yes", "--appendfsync", "always") if keeps else ("--appendonly", "no")
        self._arguments = ("--save", "", *kept, *also)
        self._directory = directory
        self.start()

    def start(self) -> None:
        program = shutil.which("redis-server")
        assert program is not None, "these tests need redis-server"
        ports = () if "--tls-port" in self._arguments else ("--port", str(self.port))
        with (self._directory / "redis.log").open("a") as log:
            self._process = subprocess.Popen(
                [program, *ports, "--bind", "127.0.0.1", *self._arguments],
                cwd=self._directory,
                stdout=log,
                stderr=log,
            )
        deadline_s = time.monotonic() + 30
        while time.monotonic() < deadline_s:
            with contextlib.suppress(OSError), socket.create_connection(("127.0.0.1", self.port)):
                return
            time.sleep(0.01)
        raise AssertionError("redis-server does not listen")

    def kill(self) -> None:
        self._process.kill()
        self._process.wait(30)

    def pause(self) -> None:
        os.kill(self._process.pid, signal.SIGSTOP)

    def go_on(self) -> None:
        os.kill(self._process.pid, signal.SIGCONT)

"""``serve``: an emulated vLLM as a child process, for the command line and for tests.

Owns the child's life: its process group, its log, its state folder, and that nothing of it is left.
Imports no vLLM.
"""

import os
import signal
import socket
import subprocess
import sys
import tempfile
import time
from collections.abc import Sequence
from pathlib import Path
from types import FrameType, TracebackType
from typing import Annotated, Protocol, Self

import httpx
import msgspec
from cyclopts import Parameter

from backend_patch.emulator.device import DeviceReport
from backend_patch.emulator.failures import Failures, write_failures
from backend_patch.emulator.launch import LaunchError, LaunchOptions, command, environment

START_TIMEOUT_S = 300.0
"""It takes 20 s alone on two cores; most of that is importing."""
STOP_TIMEOUT_S = 20.0
POLL_S = 0.2
LOG_LINES = 40


class MakeCommand(Protocol):
    def __call__(
        self, model_dir: Path, options: LaunchOptions, *, port: int, state_dir: Path, extra: Sequence[str]
    ) -> list[str]: ...


class EmulatedServer:
    """``with EmulatedServer(folder, LaunchOptions(port=0)) as server: ... server.url``."""

    def __init__(
        self,
        model_dir: Path,
        options: LaunchOptions | None = None,
        *,
        extra: Sequence[str] = (),
        log: Path | None = None,
        command: MakeCommand = command,
    ) -> None:
        """``extra`` are flags for vLLM; ``log`` gets what it prints, else a file that goes with it."""
        self._model_dir = model_dir
        self._options = options or LaunchOptions()
        self._extra = extra
        self._log = log
        self._command = command
        self.process: subprocess.Popen[bytes] | None = None
        self.url = ""

    def __enter__(self) -> Self:
        self.start()
        try:
            self.wait_until_healthy()
        except BaseException:
            self.stop()
            raise
        return self

    def __exit__(
        self, kind: type[BaseException] | None, exc: BaseException | None, trace: TracebackType | None
    ) -> None:
        self.stop()

    def start(self) -> None:
        """Raises:
        LaunchError: an option is wrong, or the port is taken.
        """
        env = environment(os.environ, self._options)
        port = _free_port(self._options.host, self._options.port)
        self._folder = tempfile.TemporaryDirectory(prefix="mars-emulator-")
        self.state_dir = Path(self._folder.name)
        self.log_path = self._log or self.state_dir / "log"
        try:
            line = self._command(
                self._model_dir, self._options, port=port, state_dir=self.state_dir, extra=self._extra
            )
            with self.log_path.open("wb") as output:
                # A session of its own, so that its engine goes with it.
                self.process = subprocess.Popen(
                    line,
                    stdin=subprocess.PIPE,  # its end tells the child that we are gone
                    stdout=output,
                    stderr=output,
                    env=env,
                    start_new_session=True,
                )
        except BaseException:
            self._folder.cleanup()
            raise
        host = f"[{self._options.host}]" if ":" in self._options.host else self._options.host
        self.url = f"http://{host}:{port}"

    def wait_until_healthy(self, timeout_s: float = START_TIMEOUT_S) -> None:
        """Raises:
        LaunchError: it ended, or took too long; with the end of its log.
        """
        assert self.process is not None
        deadline_s = time.monotonic() + timeout_s
        while time.monotonic() < deadline_s:
            if self.process.poll() is not None:
                raise LaunchError(f"vLLM ended with status {self.process.returncode}:\n{self.last_lines()}")
            try:
                if httpx.get(f"{self.url}/health", timeout=5.0).status_code == 200:
                    return
            except httpx.TransportError:
                time.sleep(POLL_S)
        raise LaunchError(f"vLLM was not ready after {timeout_s:.0f} s:\n{self.last_lines()}")

    def stop(self) -> None:
        """End it, by force if need be, with all of its processes."""
        if self.process is None:
            return
        self.process.terminate()
        try:
            self.process.wait(STOP_TIMEOUT_S)
        except subprocess.TimeoutExpired:
            pass
        finally:
            _kill_group(self.process.pid)
            self.process.wait()
            assert self.process.stdin is not None
            self.process.stdin.close()
            self.process = None
            self._folder.cleanup()

    def last_lines(self) -> str:
        lines = self.log_path.read_text(encoding="utf-8", errors="replace").splitlines()
        return "\n".join(lines[-LOG_LINES:])

    def report(self, rank: int = 0) -> DeviceReport | None:
        """Of the device so far; None before its first step. At most half a second old while it works."""
        try:
            content = (self.state_dir / f"device-{rank}.json").read_bytes()
        except FileNotFoundError:
            return None
        return msgspec.json.decode(content, type=DeviceReport)

    def fail(self, failures: Failures) -> None:
        """From the next step on; ``Failures()`` ends them."""
        write_failures(self.state_dir, failures)


class _Told(Exception):
    """A signal to stop has come."""


def serve(
    model_dir: Path,
    *vllm_flags: Annotated[str, Parameter(allow_leading_hyphen=True)],
    log: Path | None = None,
    options: Annotated[LaunchOptions | None, Parameter(name="*")] = None,
) -> int:
    """Serve until SIGTERM or SIGINT; prints one line with the URL when ready.

    Parameters
    ----------
    model_dir
        A model folder; only its tokenizer, chat template and configuration are used.
    vllm_flags
        Behind ``--``: any flags of vLLM's own.
    log
        File for what vLLM prints. Default: kept until it ends, and its last lines shown if it fails.
    """
    return run(EmulatedServer(model_dir, options, extra=vllm_flags, log=log))


def run(server: EmulatedServer) -> int:
    """In the foreground; the status to exit with."""
    for number in (signal.SIGTERM, signal.SIGINT):
        signal.signal(number, _tell)
    try:
        with server:
            assert server.process is not None
            print(f"emulated vllm ready on {server.url}", flush=True)  # noqa: T201 - the command's output
            status = server.process.wait()
            return _fail(f"vLLM ended with status {status}:\n{server.last_lines()}")
    except LaunchError as exc:
        return _fail(str(exc))
    except _Told:
        return 0


def _tell(number: int, frame: FrameType | None) -> None:
    for each in (signal.SIGTERM, signal.SIGINT):
        signal.signal(each, signal.SIG_IGN)  # the end is on its way; a second signal would cut it short
    raise _Told


def _fail(reason: str) -> int:
    print(f"emulated vllm: {reason}", file=sys.stderr)  # noqa: T201
    return 2


def _free_port(host: str, port: int) -> int:
    family = socket.AF_INET6 if ":" in host else socket.AF_INET
    with socket.socket(family) as listener:
        listener.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        try:
            listener.bind((host, port))
        except OSError as exc:
            raise LaunchError(f"cannot listen on {host}:{port}: {exc.strerror}") from exc
        found: int = listener.getsockname()[1]
        return found


def _kill_group(group: int) -> None:
    try:
        os.killpg(group, signal.SIGKILL)
    except ProcessLookupError:
        return

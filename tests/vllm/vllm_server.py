"""A real vLLM server as a child process: started, waited for, stopped, its log kept.

Owns the process and nothing of what it serves. Every server is a process group of its own, so that the
engine and its workers go with the API server however that ends.
"""

import contextlib
import os
import signal
import socket
import subprocess
import time
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

import httpx
import pytest

START_TIMEOUT_S = 300.0
"""It takes 40 s alone on two cores; most of that is importing."""
STOP_TIMEOUT_S = 30.0

ENVIRONMENT = {
    "CUDA_VISIBLE_DEVICES": "",
    "HF_HUB_OFFLINE": "1",
    "VLLM_NO_USAGE_STATS": "1",
    # Block hashes of two processes, and of two runs, are the same.
    "PYTHONHASHSEED": "0",
}


@dataclass(frozen=True)
class VllmServer:
    url: str
    log_file: Path

    @property
    def log(self) -> str:
        return self.log_file.read_text(errors="replace")


@contextlib.contextmanager
def vllm_server(
    command: Sequence[str], log_file: Path, environment: Mapping[str, str] | None = None
) -> Iterator[VllmServer]:
    """Run ``command`` with ``--host`` and ``--port`` added, until it is healthy, and then for the block."""
    port = _free_port()
    server = VllmServer(f"http://127.0.0.1:{port}", log_file)
    with log_file.open("wb") as output:
        process = subprocess.Popen(
            [*command, "--host", "127.0.0.1", "--port", str(port)],
            stdout=output,
            stderr=output,
            env=os.environ | ENVIRONMENT | dict(environment or {}),
            start_new_session=True,
        )
        try:
            _wait_until_healthy(server, process)
            yield server
        finally:
            _stop(process)


def _free_port() -> int:
    with socket.create_server(("127.0.0.1", 0)) as listening:
        port: int = listening.getsockname()[1]
        return port


def _wait_until_healthy(server: VllmServer, process: subprocess.Popen[bytes]) -> None:
    deadline_s = time.monotonic() + START_TIMEOUT_S
    while time.monotonic() < deadline_s and process.poll() is None:
        try:
            if httpx.get(f"{server.url}/health").status_code == 200:
                return
        except httpx.TransportError:
            time.sleep(0.5)
    pytest.fail("vLLM did not come up:\n" + server.log[-5000:])


def _stop(process: subprocess.Popen[bytes]) -> None:
    process.terminate()
    with contextlib.suppress(subprocess.TimeoutExpired):
        process.wait(STOP_TIMEOUT_S)
    with contextlib.suppress(ProcessLookupError):  # nobody is left
        os.killpg(process.pid, signal.SIGKILL)
    process.wait()

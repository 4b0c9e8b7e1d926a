"""One real vLLM for all tests of this folder, on a model of its own with random weights."""

import os
import signal
import socket
import subprocess
import sys
import time
from collections.abc import AsyncIterator, Iterator
from pathlib import Path

import httpx
import pytest

from backend_patch.emulator.tiny_model import write_tiny_model
from marsproxy.config import Backend
from marsproxy.server import Server
from tests.integration.conftest import running_proxy

CONTEXT_TOKENS = 8192
START_TIMEOUT_S = 300.0
"""It takes 40 s alone on two cores; most of that is importing."""
STOP_TIMEOUT_S = 30.0

FLAGS = (
    *("--load-format", "dummy", "--served-model-name", "tiny", "--max-model-len", str(CONTEXT_TOKENS)),
    *("--enforce-eager", "--enable-prompt-tokens-details", "--scheduling-policy", "priority"),
    *("--enable-auto-tool-choice", "--tool-call-parser", "hermes"),
    # So that the second request waits, and can be overtaken.
    *("--max-num-seqs", "1"),
)
ENVIRONMENT = {"HF_HUB_OFFLINE": "1", "VLLM_CPU_KVCACHE_SPACE": "1", "VLLM_NO_USAGE_STATS": "1"}
"""No hub, 1 GB of KV cache, no telemetry of vLLM's own."""


@pytest.fixture(scope="session")
def vllm_url(tmp_path_factory: pytest.TempPathFactory) -> Iterator[str]:
    folder = tmp_path_factory.mktemp("vllm")
    write_tiny_model(folder, context_tokens=CONTEXT_TOKENS)
    port = _free_port()
    command = [sys.executable, "-m", "vllm.entrypoints.openai.api_server", "--model", str(folder)]
    command += ["--host", "127.0.0.1", "--port", str(port), *FLAGS]
    log = folder / "log"
    with log.open("wb") as output:
        # A session of its own, so that the engine's process goes with the server's.
        process = subprocess.Popen(
            command, stdout=output, stderr=output, env=os.environ | ENVIRONMENT, start_new_session=True
        )
        try:
            _wait_until_healthy(f"http://127.0.0.1:{port}", process, log)
            yield f"http://127.0.0.1:{port}"
        finally:
            _stop(process)


@pytest.fixture
async def proxy(vllm_url: str) -> AsyncIterator[Server]:
    async with running_proxy(vllm_url, backend=Backend(telemetry_interval_s=0.2)) as server:
        yield server


def _free_port() -> int:
    with socket.create_server(("127.0.0.1", 0)) as listening:
        port: int = listening.getsockname()[1]
        return port


def _wait_until_healthy(url: str, process: subprocess.Popen[bytes], log: Path) -> None:
    deadline_s = time.monotonic() + START_TIMEOUT_S
    while time.monotonic() < deadline_s:
        if process.poll() is not None:
            break
        try:
            if httpx.get(f"{url}/health").status_code == 200:
                return
        except httpx.TransportError:
            time.sleep(0.5)
    pytest.fail("vLLM did not come up:\n" + log.read_text(errors="replace")[-5000:])


def _stop(process: subprocess.Popen[bytes]) -> None:
    process.terminate()
    try:
        process.wait(STOP_TIMEOUT_S)
    except subprocess.TimeoutExpired:
        os.killpg(process.pid, signal.SIGKILL)
        process.wait()

"""The servers that the tests of this folder share: each starts once, when the first test asks for it."""

import sys
from collections.abc import AsyncIterator, Iterator
from pathlib import Path

import pytest

from marsproxy.config import Backend
from marsproxy.server import Server
from tests.integration.conftest import running_proxy
from tests.vllm.tiny_model import CONTEXT_TOKENS, write_tiny_model
from tests.vllm.vllm_server import vllm_server

FLAGS = (
    *("--load-format", "dummy", "--served-model-name", "tiny", "--max-model-len", str(CONTEXT_TOKENS)),
    *("--enforce-eager", "--enable-prompt-tokens-details", "--scheduling-policy", "priority"),
    *("--enable-auto-tool-choice", "--tool-call-parser", "hermes"),
    # So that the second request waits, and can be overtaken.
    *("--max-num-seqs", "1"),
)
KV_SPACE = {"VLLM_CPU_KVCACHE_SPACE": "1"}
"""Gigabytes."""


@pytest.fixture(scope="session")
def tiny_model(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("model")
    write_tiny_model(folder)
    return folder


@pytest.fixture(scope="session")
def vllm_url(tiny_model: Path, tmp_path_factory: pytest.TempPathFactory) -> Iterator[str]:
    command = [sys.executable, "-m", "vllm.entrypoints.openai.api_server", "--model", str(tiny_model)]
    log_file = tmp_path_factory.mktemp("vllm") / "log"
    with vllm_server([*command, *FLAGS], log_file, KV_SPACE) as server:
        yield server.url


@pytest.fixture
async def proxy(vllm_url: str) -> AsyncIterator[Server]:
    async with running_proxy(vllm_url, backend=Backend(telemetry_interval_s=0.2)) as server:
        yield server

"""The servers that the tests of this folder share: each starts once, when the first test asks for it."""

import random
import sys
from collections.abc import AsyncIterator, Iterator
from pathlib import Path

import pytest

from backend_patch.emulator.serve import EmulatedServer
from backend_patch.emulator.tiny_model import write_tiny_model
from marsproxy.config import Backend
from marsproxy.server import Server
from tests.integration.conftest import running_proxy
from tests.vllm.emulated import emulated_vllm
from tests.vllm.engine_client import EngineClient, engine_client
from tests.vllm.scenes import assert_all_free_in_the_end
from tests.vllm.vllm_server import vllm_server

CONTEXT_TOKENS = 8192
FLAGS = (
    *("--load-format", "dummy", "--served-model-name", "tiny", "--max-model-len", str(CONTEXT_TOKENS)),
    *("--enforce-eager", "--enable-prompt-tokens-details", "--scheduling-policy", "priority"),
    *("--enable-auto-tool-choice", "--tool-call-parser", "hermes"),
    # So that the second request waits, and can be overtaken.
    *("--max-num-seqs", "1"),
)
AGING_S = 5.0
"""Of the patched engine: a new session may break soft leases once it has waited for so long."""
KV_SPACE = {"VLLM_CPU_KVCACHE_SPACE": "1"}
"""Gigabytes."""


def pytest_addoption(parser: pytest.Parser) -> None:
    parser.addoption("--fuzz-seconds", type=float, default=60.0, help="how long the random sessions go on")


@pytest.fixture(scope="session")
def model(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Without weights: random ones, or none where nothing is computed."""
    folder = tmp_path_factory.mktemp("model")
    write_tiny_model(folder)
    return folder


@pytest.fixture(scope="session")
def vllm_url(model: Path, tmp_path_factory: pytest.TempPathFactory) -> Iterator[str]:
    command = [sys.executable, "-m", "vllm.entrypoints.openai.api_server", "--model", str(model)]
    log_file = tmp_path_factory.mktemp("vllm") / "log"
    with vllm_server([*command, *FLAGS], log_file, KV_SPACE) as server:
        yield server.url


@pytest.fixture
async def proxy(vllm_url: str) -> AsyncIterator[Server]:
    async with running_proxy(vllm_url, backend=Backend(telemetry_interval_s=0.2)) as server:
        yield server


@pytest.fixture(scope="session")
def stock(model: Path, tmp_path_factory: pytest.TempPathFactory) -> Iterator[EmulatedServer]:
    """The control: the same engine on the same emulated accelerator, without the patch."""
    with emulated_vllm(model, tmp_path_factory.mktemp("stock") / "log") as server:
        yield server


@pytest.fixture(scope="session")
def patched(model: Path, tmp_path_factory: pytest.TempPathFactory) -> Iterator[EmulatedServer]:
    log = tmp_path_factory.mktemp("patched") / "log"
    with emulated_vllm(model, log, patch=True, settings={"aging_s": AGING_S}) as server:
        yield server


@pytest.fixture
async def stock_engine(stock: EmulatedServer) -> AsyncIterator[EngineClient]:
    async with engine_client(stock.url) as client:
        yield client


@pytest.fixture
async def engine(patched: EmulatedServer) -> AsyncIterator[EngineClient]:
    """The patched one. Whatever a test did, all blocks are free once its sessions have ended."""
    async with engine_client(patched.url) as client:
        yield client
        await assert_all_free_in_the_end(client)


@pytest.fixture(scope="session")
def rough(model: Path, tmp_path_factory: pytest.TempPathFactory) -> Iterator[EmulatedServer]:
    """All that may get in each other's way at once: two API servers, priorities, a host tier, a pool that is
    too small, and an error in the patch that waits to be asked for."""
    options = {"kv_tokens": 40_000, "max_model_len": 32_768, "host_kv_tokens": 200_000}
    with emulated_vllm(
        model,
        tmp_path_factory.mktemp("rough") / "log",
        *("--scheduler-cls", "tests.vllm.faulty_scheduler.make_scheduler"),
        patch=True,
        api_server_count=2,
        scheduling_policy="priority",
        **options,
    ) as server:
        yield server


@pytest.fixture
async def rough_engine(rough: EmulatedServer) -> AsyncIterator[EngineClient]:
    async with engine_client(rough.url) as client:
        yield client


@pytest.fixture
async def tiered_engine(rough_engine: EngineClient) -> AsyncIterator[EngineClient]:
    """The one with a host tier."""
    yield rough_engine
    await assert_all_free_in_the_end(rough_engine)


@pytest.fixture
def chance(request: pytest.FixtureRequest) -> random.Random:
    """Other tokens than in any other test, and the same in every run."""
    return random.Random(request.node.nodeid)

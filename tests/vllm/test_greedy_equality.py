"""A real model on the CPU says the same to the token, with the patch and without: leases change no answer.

Twelve layers of random weights and a pool that is six times too small, so that contexts are dropped, found
again and cut into other batches than in the other engine. The sums are 32-bit floats: other batches change
their last bits, far less than what tells two tokens apart for the seed below, which a test checks.
"""

import asyncio
import random
import sys
from dataclasses import dataclass
from pathlib import Path

import pytest

from backend_patch.emulator.launch import SCHEDULER
from backend_patch.emulator.tiny_model import write_tiny_model
from backend_patch.protocol import LeaseMode
from tests.vllm.engine_client import Context, EngineClient, Turn, engine_client
from tests.vllm.scenes import assert_all_free_in_the_end
from tests.vllm.vllm_server import vllm_server

pytestmark = [pytest.mark.vllm, pytest.mark.timeout(600)]

SESSIONS, TURNS = 20, 10
NEW_TOKENS, OUTPUT_TOKENS = 80, 12
AT_ONCE = 8
POOL_TOKENS = 3_200
BLOCK_TOKENS = 32
"""The smallest of vLLM's attention on a CPU."""
SEED = 1
SAFETY = 10
"""How much closer than the closest two tokens what other batches change has to be."""

FLAGS = (
    *("--served-model-name", "tiny", "--dtype", "float32", "--enforce-eager", "--max-model-len", "2048"),
    *("--block-size", str(BLOCK_TOKENS), "--num-gpu-blocks-override", str(POOL_TOKENS // BLOCK_TOKENS + 1)),
    *("--max-num-seqs", "16", "--max-num-batched-tokens", "512", "--enable-prompt-tokens-details"),
)
PATCH = ("--scheduler-cls", SCHEDULER)
"""Synchronous: vLLM does not schedule ahead on a CPU."""


@dataclass(frozen=True)
class Run:
    """All turns of all sessions."""

    turns: dict[str, list[Turn]]
    reclaimed: int = 0
    resumed: int = 0

    @property
    def outputs(self) -> dict[str, list[list[int]]]:
        return {name: [turn.output for turn in turns] for name, turns in self.turns.items()}

    @property
    def best(self) -> list[float]:
        """Log probability of every token that was said."""
        return [each for turns in self.turns.values() for turn in turns for each in turn.best]

    @property
    def closest(self) -> float:
        """Between a token that was said and the next best, anywhere."""
        return min(each for turns in self.turns.values() for turn in turns for each in turn.gaps)

    @property
    def cached_tokens(self) -> int:
        return sum(turn.cached_tokens for turns in self.turns.values() for turn in turns)


@pytest.fixture(scope="module")
def weights(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("weights")
    write_tiny_model(folder, context_tokens=2_048, weights=True)
    return folder


async def all_sessions(engine: EngineClient) -> dict[str, list[Turn]]:
    """Round by round, ``AT_ONCE`` of them at a time."""
    contexts = [Context(f"session-{n}", random.Random(f"{SEED}-{n}")) for n in range(SESSIONS)]
    turns: dict[str, list[Turn]] = {each.session: [] for each in contexts}
    places = asyncio.Semaphore(AT_ONCE)

    async def take_turn(number: int, context: Context) -> None:
        mode = list(LeaseMode)[number % 3].value
        async with places:
            turn = await engine.turn(context, NEW_TOKENS, OUTPUT_TOKENS, mars_ttl_ms=60_000, mars_mode=mode)
        turns[context.session].append(turn)

    for _ in range(TURNS):
        await asyncio.gather(*(take_turn(number, each) for number, each in enumerate(contexts)))
    return turns


async def run(url: str, *, is_patched: bool) -> Run:
    async with engine_client(url, with_logprobs=True) as engine:
        turns = await all_sessions(engine)
        if not is_patched:
            return Run(turns)
        headroom = await engine.headroom()
        await assert_all_free_in_the_end(engine)
        return Run(turns, headroom.reclaimed_total, headroom.resumed_total)


def served(weights: Path, log_file: Path, *flags: str, is_patched: bool) -> Run:
    command = [sys.executable, "-m", "vllm.entrypoints.openai.api_server", "--model", str(weights)]
    environment = {"VLLM_CPU_KVCACHE_SPACE": "1", "VLLM_PLUGINS": "mars" if is_patched else ""}
    with vllm_server([*command, *FLAGS, *flags], log_file, environment) as server:
        return asyncio.run(run(server.url, is_patched=is_patched))


@pytest.fixture(scope="module")
def stock_run(weights: Path, tmp_path_factory: pytest.TempPathFactory) -> Run:
    return served(weights, tmp_path_factory.mktemp("stock") / "log", is_patched=False)


@pytest.fixture(scope="module")
def patched_run(weights: Path, tmp_path_factory: pytest.TempPathFactory) -> Run:
    return served(weights, tmp_path_factory.mktemp("patched") / "log", *PATCH, is_patched=True)


def test_every_token_is_the_same(stock_run: Run, patched_run: Run) -> None:
    assert sum(len(turns) for turns in stock_run.outputs.values()) == SESSIONS * TURNS
    assert patched_run.outputs == stock_run.outputs


def test_leases_did_their_work(stock_run: Run, patched_run: Run) -> None:
    """So that there was something that could have gone wrong."""
    assert patched_run.resumed > SESSIONS
    assert patched_run.reclaimed > SESSIONS
    assert patched_run.cached_tokens != stock_run.cached_tokens


def test_the_answers_depend_on_everything_before(stock_run: Run) -> None:
    """A model that says the same word for ever would pass above whatever was in its cache."""
    outputs = [tuple(output) for turns in stock_run.outputs.values() for output in turns]
    assert len(set(outputs)) > 0.9 * len(outputs)


def test_no_two_tokens_are_as_close_as_batches_can_matter(stock_run: Run, patched_run: Run) -> None:
    """Where this fails, above was luck: take another seed."""
    assert len(stock_run.best) == SESSIONS * TURNS * OUTPUT_TOKENS
    changed = max(abs(a - b) for a, b in zip(stock_run.best, patched_run.best, strict=True))
    assert stock_run.closest > SAFETY * changed

"""``python -m loadgen.engine`` as a process: its one line, its exit, its complaints."""

import asyncio
import signal
import sys
from pathlib import Path
from typing import Any

import httpx
import pytest

from loadgen.engine.config import ConfigError, EngineConfig

pytestmark = pytest.mark.slow

ROOT = Path(__file__).parents[3]


async def start(*arguments: str) -> asyncio.subprocess.Process:
    pipe = asyncio.subprocess.PIPE
    return await asyncio.create_subprocess_exec(
        sys.executable, "-m", "loadgen.engine", *arguments, stdout=pipe, stderr=pipe, cwd=ROOT
    )


@pytest.mark.parametrize("number", [signal.SIGTERM, signal.SIGINT])
async def test_it_prints_one_line_serves_and_exits_cleanly(number: signal.Signals) -> None:
    process = await start("--port", "0", "--kv-tokens", "8000", "--speed", "20", "--max-num-seqs", "8")
    assert process.stdout is not None
    try:
        line = (await asyncio.wait_for(process.stdout.readline(), 30)).decode()
        assert line.startswith("loadgen engine ready on http://127.0.0.1:")
        async with httpx.AsyncClient(base_url=line.split()[-1]) as http:
            [card] = (await http.get("/v1/models")).json()["data"]
            assert card["max_model_len"] == 8000
            body = {"messages": [{"role": "user", "content": "x"}], "max_tokens": 7000, "ignore_eos": True}
            # A stream still open does not keep it from stopping.
            async with http.stream("POST", "/v1/chat/completions", json=body | {"stream": True}):
                process.send_signal(number)
                output, errors = await asyncio.wait_for(process.communicate(), 30)
    finally:
        if process.returncode is None:
            process.kill()
            await process.wait()
    assert (process.returncode, output) == (0, b"")
    assert b"Traceback" not in errors


async def test_a_bad_setting_exits_with_2_and_names_it() -> None:
    process = await start("--hardware", "b200")
    output, errors = await asyncio.wait_for(process.communicate(), 30)
    assert (process.returncode, output) == (2, b"")
    assert b"unknown hardware profile 'b200'; known: a100, cpu, h100, h200" in errors
    assert b"Traceback" not in errors


@pytest.mark.parametrize(
    ("settings", "words"),
    [
        ({"speed": 0.0}, "speed must be above 0"),
        ({"kv_tokens": 3}, "kv_tokens must be at least one block, 16 tokens"),
        ({"max_num_seqs": 0}, "max_num_seqs must be at least 1"),
        ({"scheduling_policy": "sjf"}, "scheduling_policy must be fcfs or priority"),
        ({"kv_tokens": 1600, "max_model_len": 1601}, "max_model_len .1601. is more than the KV cache holds"),
        ({"hardware": "cpu"}, "does not fit on hardware cpu"),
        ({"model": "gpt"}, "unknown model profile 'gpt'; known: llama"),
    ],
)
def test_settings_that_cannot_be(settings: dict[str, Any], words: str) -> None:
    with pytest.raises(ConfigError, match=words):
        EngineConfig(**settings).resolve()


def test_what_the_defaults_come_to() -> None:
    model = EngineConfig().resolve()
    assert model.served_name == "Qwen/Qwen3-30B-A3B"
    assert model.max_model_len == model.limits.kv_blocks * 16
    assert (model.limits.max_batched_tokens, model.limits.max_running) == (8192, 256)

    small = EngineConfig(model="META-llama/Llama-3.1-8B-Instruct").resolve()
    assert small.max_model_len == 131_072

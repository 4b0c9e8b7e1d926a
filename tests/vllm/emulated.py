"""A real vLLM on the emulated accelerator, with the patch or without: the same in everything else.

The times are modelled (one H100, Qwen3-30B-A3B), so a prefill of 8,192 tokens takes a third of a second
on any machine, and what is compared is the scheduler's doing.
"""

import contextlib
import json
import os
from collections.abc import Iterator, Mapping
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest

from backend_patch.emulator.launch import LaunchOptions
from backend_patch.emulator.serve import EmulatedServer

ROOT = Path(__file__).parent.parent.parent
BLOCK_TOKENS = 16
POOL_TOKENS = 80_000
OPTIONS = LaunchOptions(
    port=0,
    kv_tokens=POOL_TOKENS,
    max_model_len=65_536,
    max_num_batched_tokens=8_192,
    max_num_seqs=64,
    served_model_name="tiny",
)


@contextlib.contextmanager
def emulated_vllm(
    model: Path, log: Path, *flags: str, settings: Mapping[str, Any] | None = None, **options: Any
) -> Iterator[EmulatedServer]:
    """``settings`` are the patch's, ``options`` differ from those above, ``flags`` are vLLM's."""
    extra = [*flags, "--additional-config", json.dumps({"mars": settings or {}})]
    with pytest.MonkeyPatch.context() as environment:
        environment.setenv("VLLM_SERVER_DEV_MODE", "1")  # for /reset_prefix_cache
        environment.setenv("PYTHONPATH", str(ROOT), prepend=os.pathsep)  # for schedulers that tests bring
        server = EmulatedServer(model, replace(OPTIONS, **options), extra=extra, log=log)
        server.start()
    try:
        server.wait_until_healthy()
        yield server
    finally:
        server.stop()

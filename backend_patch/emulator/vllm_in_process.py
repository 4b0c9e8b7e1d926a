"""vLLM's scheduler and KV cache manager in this process: no server, no worker, no weights.

Owns how they are built, for vLLM 0.31 to 0.33. The model is one attention layer with a context longer than
any, which the scheduler needs only for its limits; the pool is as many blocks as the shape says.
"""

import importlib
import json
import logging
import tempfile
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import torch
from vllm.config import CacheConfig, DeviceConfig, ModelConfig, SchedulerConfig, VllmConfig
from vllm.v1.core.sched.async_scheduler import AsyncScheduler
from vllm.v1.core.sched.scheduler import Scheduler
from vllm.v1.kv_cache_interface import FullAttentionSpec, KVCacheConfig, KVCacheGroupSpec
from vllm.v1.metrics.stats import PrefixCacheStats
from vllm.v1.structured_output import StructuredOutputManager

from backend_patch.virtual_engine import EngineShape

MODEL_LEN = 1 << 22
"""Tokens: more than any context, so that the pool is what limits a request."""

MODEL = {
    "architectures": ["Qwen2ForCausalLM"],
    "model_type": "qwen2",
    "hidden_size": 64,
    "intermediate_size": 128,
    "num_hidden_layers": 1,
    "num_attention_heads": 2,
    "num_key_value_heads": 1,
    "vocab_size": 1000,
    "max_position_embeddings": MODEL_LEN,
    "torch_dtype": "float32",
}


def build_scheduler(shape: EngineShape) -> Any:
    config = vllm_config(shape)
    blocks = shape.kv_blocks + 1
    config.cache_config.num_gpu_blocks = blocks
    spec = FullAttentionSpec(block_size=shape.block_tokens, num_kv_heads=1, head_size=1, dtype=torch.float32)
    scheduler = scheduler_factory(shape)(
        vllm_config=config,
        kv_cache_config=KVCacheConfig(blocks, [], [KVCacheGroupSpec(["layer"], spec)]),
        structured_output_manager=StructuredOutputManager(config),
        block_size=shape.block_tokens,
    )
    # The scheduler would empty these statistics after each step, so it is told to keep none; its KV cache
    # manager then keeps them alone, from the start on.
    scheduler.kv_cache_manager.log_stats = True
    scheduler.kv_cache_manager.prefix_cache_stats = PrefixCacheStats()
    return scheduler


def scheduler_factory(shape: EngineShape) -> Any:
    if shape.is_patched:
        return importlib.import_module("backend_patch.vllm_scheduler").make_scheduler
    return AsyncScheduler if shape.is_async else Scheduler


def vllm_config(shape: EngineShape) -> VllmConfig:
    with model_folder() as folder, without_advice():
        config = VllmConfig(
            model_config=ModelConfig(
                model=str(folder), dtype="float32", skip_tokenizer_init=True, max_model_len=MODEL_LEN
            ),
            scheduler_config=SchedulerConfig(
                max_num_batched_tokens=shape.max_batched_tokens,
                max_num_seqs=shape.max_running,
                max_model_len=MODEL_LEN,
                enable_chunked_prefill=True,
                policy=shape.policy,
                is_encoder_decoder=False,
                async_scheduling=shape.is_async,
            ),
            cache_config=CacheConfig(block_size=shape.block_tokens, enable_prefix_caching=True),
            device_config=DeviceConfig("cpu"),
            additional_config={"mars": {"publish": False, **shape.patch_options}} if shape.is_patched else {},
        )
    # The platform of a machine without an accelerator may have switched it off.
    config.scheduler_config.async_scheduling = shape.is_async
    return config


@contextmanager
def without_advice() -> Iterator[None]:
    """vLLM warns of what is slow on this machine's processor, where nothing will be computed."""
    logger = logging.getLogger("vllm")
    level = logger.level
    logger.setLevel(logging.ERROR)
    try:
        yield
    finally:
        logger.setLevel(level)


@contextmanager
def model_folder() -> Iterator[Path]:
    """What a model's configuration is read from; nothing else of a model is looked for, here or on a hub."""
    with tempfile.TemporaryDirectory(prefix="mars-virtual-") as folder:
        (Path(folder) / "config.json").write_text(json.dumps(MODEL), encoding="utf-8")
        yield Path(folder)

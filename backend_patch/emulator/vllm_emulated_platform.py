"""A platform without an accelerator that keeps an accelerator's scheduling.

vLLM's CPU platform schedules synchronously, in blocks of 128 tokens. What is emulated here is a GPU, so its
defaults are put back: asynchronous scheduling, blocks of 16 tokens; nothing is compiled, as nothing runs.
What the emulation cannot do is refused here, where the configuration is made, with the reason.
"""

from typing import Any

from vllm.platforms.cpu import CpuPlatform

from backend_patch.emulator.settings import BLOCK_TOKENS


class EmulatedPlatform(CpuPlatform):  # type: ignore[misc]
    @classmethod
    def check_and_update_config(cls, vllm_config: Any) -> None:
        from vllm.config import CompilationMode  # it imports the platform itself

        refuse_what_is_not_emulated(vllm_config)
        async_scheduling = vllm_config.scheduler_config.async_scheduling
        cache = vllm_config.cache_config
        block_tokens = cache.block_size if cache.user_specified_block_size else BLOCK_TOKENS
        super().check_and_update_config(vllm_config)
        vllm_config.scheduler_config.async_scheduling = async_scheduling
        cache.block_size = block_tokens
        vllm_config.compilation_config.mode = CompilationMode.NONE


def refuse_what_is_not_emulated(vllm_config: Any) -> None:
    """Raises:
    ValueError: names the feature.
    """
    parallel, model = vllm_config.parallel_config, vllm_config.model_config
    refused = {
        "speculative decoding": vllm_config.speculative_config is not None,
        "LoRA": vllm_config.lora_config is not None,
        "tensor parallelism (take a hardware profile of the whole)": parallel.tensor_parallel_size > 1,
        "pipeline parallelism": parallel.pipeline_parallel_size > 1,
        "pooling models": model is not None and model.runner_type == "pooling",
        "prompt embeddings": model is not None and getattr(model, "enable_prompt_embeds", False),
    }
    if named := [name for name, is_asked_for in refused.items() if is_asked_for]:
        raise ValueError(f"the emulated accelerator does not do: {', '.join(named)}")

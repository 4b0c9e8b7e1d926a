"""A platform without an accelerator that keeps an accelerator's scheduling.

vLLM's CPU platform schedules synchronously, in blocks of 128 tokens. What is emulated here is a GPU, so its
defaults are put back: asynchronous scheduling, blocks of 16 tokens; nothing is compiled, as nothing runs.
What the emulation cannot do is refused here, with the reason: where the configuration is made, or where a
request comes in.
"""

from typing import Any

from vllm.platforms.cpu import CpuPlatform

from backend_patch.emulator.sampler import check_output_args
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

    @classmethod
    def validate_request(cls, *args: Any, **kwargs: Any) -> None:
        """In the API server; vLLM answers the client with 400 and the message."""
        from vllm.exceptions import VLLMValidationError

        super().validate_request(*args, **kwargs)
        for params in (*args, *kwargs.values()):  # their order differs between releases
            if hasattr(params, "extra_args"):
                try:
                    refuse_what_cannot_be_answered(params)
                except ValueError as exc:
                    raise VLLMValidationError(str(exc)) from exc


def refuse_what_cannot_be_answered(params: Any) -> None:
    """Raises:
    ValueError: names the parameter.
    """
    if getattr(params, "prompt_logprobs", None) is not None:
        raise ValueError("prompt_logprobs: the emulated accelerator has none")
    check_output_args(params.extra_args or {})


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

"""The engine's settings, one frozen value, and the errors that name the setting."""

from dataclasses import dataclass
from pathlib import Path

from backend_patch.step_time import HardwareProfile, ModelProfile, StepTime, model_names
from loadgen.engine.queues import PolicyName
from loadgen.engine.scheduler import SchedulerLimits


class ConfigError(ValueError):
    """A setting is out of range or two of them contradict each other."""


@dataclass(frozen=True, slots=True)
class EngineConfig:
    host: str = "127.0.0.1"
    """Address to listen on."""
    port: int = 8000
    """0 takes a free one; the ready line says which."""
    hardware: str = "h100"
    """Accelerator to imitate: h100, h200, a100 or cpu."""
    model: str = "qwen3-30b-a3b"
    """Model to imitate: qwen3-30b-a3b, llama-3.1-8b or tiny, or the served name of one."""
    served_model_name: str | None = None
    """What /v1/models and requests call the model. Default: the name on Hugging Face."""
    kv_tokens: int | None = None
    """Size of the KV cache in tokens. Default: what fits beside the weights on the hardware."""
    block_size: int = 16
    """Tokens per KV block (vLLM's default on CUDA)."""
    scheduling_policy: PolicyName = "fcfs"
    """First come, first served, or by the priority of the request, as vLLM's flag of that name."""
    max_model_len: int | None = None
    """Longest prompt and answer together, in tokens. Default: the model's own, or the KV cache if smaller."""
    max_num_batched_tokens: int = 8192
    """Tokens per step (vLLM's default for serving on a large accelerator)."""
    max_num_seqs: int = 256
    """Requests per step."""
    speed: float = 1.0
    """Engine seconds per second of the clock: 10 runs ten times faster."""
    script: Path | None = None
    """JSON Lines of answers to give; docs/engine.md has the format."""
    seed: int = 0
    """Of generated text and lengths."""
    stream_interval: int = 1
    """Tokens per streamed chunk after the first."""
    keep_alive_s: float = 5.0
    """How long an idle connection stays open (uvicorn's default, so vLLM's)."""
    clamp_max_tokens: bool = False
    """Cut max_tokens to the room that the prompt leaves, as vLLM 0.32 does, instead of refusing."""
    request_log: Path | None = None
    """File for a line at each request's begin and end, by the request's X-Request-Id."""

    def __post_init__(self) -> None:
        for name in ("block_size", "max_num_batched_tokens", "max_num_seqs", "stream_interval"):
            if getattr(self, name) < 1:
                raise ConfigError(f"{name} must be at least 1, not {getattr(self, name)}")
        for name in ("kv_tokens", "max_model_len"):
            if getattr(self, name) is not None and getattr(self, name) < self.block_size:
                raise ConfigError(f"{name} must be at least one block, {self.block_size} tokens")
        if not self.speed > 0:
            raise ConfigError(f"speed must be above 0, not {self.speed}")
        if self.scheduling_policy not in ("fcfs", "priority"):
            raise ConfigError(f"scheduling_policy must be fcfs or priority, not {self.scheduling_policy!r}")

    def resolve(self) -> "ResolvedModel":
        """Look the profiles up and fit pool and context to each other."""
        try:
            model = _model_profile(self.model)
            step_time = StepTime(HardwareProfile.load(self.hardware), model)
        except ValueError as exc:
            raise ConfigError(str(exc)) from exc
        kv_tokens = step_time.default_kv_tokens if self.kv_tokens is None else self.kv_tokens
        if kv_tokens < self.block_size:
            raise ConfigError(
                f"model {model.name} does not fit on hardware {self.hardware}: "
                "take another of either, or set kv_tokens"
            )
        kv_blocks = kv_tokens // self.block_size
        pool_tokens = kv_blocks * self.block_size
        if self.max_model_len is not None and self.max_model_len > pool_tokens:
            raise ConfigError(
                f"max_model_len ({self.max_model_len}) is more than the KV cache holds "
                f"({pool_tokens} tokens): lower it or raise kv_tokens"
            )
        limits = SchedulerLimits(
            kv_blocks,
            self.block_size,
            self.max_num_batched_tokens,
            self.max_num_seqs,
            self.scheduling_policy,
        )
        return ResolvedModel(
            step_time,
            limits,
            self.served_model_name or model.served_name,
            self.max_model_len or min(model.max_context_tokens, pool_tokens),
        )


@dataclass(frozen=True, slots=True)
class ResolvedModel:
    """What the settings come to on their hardware."""

    step_time: StepTime
    limits: SchedulerLimits
    served_name: str
    max_model_len: int


def _model_profile(name: str) -> ModelProfile:
    for known in model_names():
        profile = ModelProfile.load(known)
        if name.lower() in (known, profile.served_name.lower()):
            return profile
    return ModelProfile.load(name)  # raises with the names that there are

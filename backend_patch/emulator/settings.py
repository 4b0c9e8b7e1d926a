"""What the emulated accelerator is told: one frozen value, handed over as ``--additional-config``.

vLLM carries ``additional_config`` to the engine's process, so the settings travel under one key of it and
the executor needs no environment variables of its own. Standard library only.
"""

from collections.abc import Mapping
from dataclasses import asdict, dataclass, field, fields
from typing import Any, Self

from backend_patch.emulator.failures import Failures
from backend_patch.step_time import HOST_BYTES_PER_S, HardwareProfile, ModelProfile, StepTime, model_names

CONFIG_KEY = "mars_emulator"
"""The member of vLLM's ``additional_config``."""

BLOCK_TOKENS = 16
"""vLLM's default block on CUDA; the pool is rounded down to whole blocks."""


@dataclass(frozen=True, slots=True)
class EmulatorSettings:
    hardware: str = "h100"
    """Accelerator to imitate, or a file: a path that ends in ``.toml``."""
    model: str = "qwen3-30b-a3b"
    """Model whose times and KV sizes count, whatever model folder the tokenizer is from. Its profile's name
    or its served name."""
    kv_tokens: int | None = None
    """Size of the KV cache in tokens. None: what fits beside the weights on the hardware."""
    speed: float = 1.0
    """Modelled seconds per second of the clock."""
    seed: int = 0
    """Of generated words and lengths."""
    host_bytes_per_s: float = HOST_BYTES_PER_S
    """Each way, between the accelerator and the host tier."""
    state_dir: str | None = None
    """Folder for the report, and for failures that change while the engine runs."""
    failures: Failures = field(default_factory=Failures)

    def __post_init__(self) -> None:
        if not self.speed > 0:
            raise ValueError(f"{CONFIG_KEY}.speed must be above 0, not {self.speed}")
        if not self.host_bytes_per_s > 0:
            raise ValueError(f"{CONFIG_KEY}.host_bytes_per_s must be above 0, not {self.host_bytes_per_s}")
        if self.kv_tokens is not None and self.kv_tokens < BLOCK_TOKENS:
            raise ValueError(f"{CONFIG_KEY}.kv_tokens must be at least one block, {BLOCK_TOKENS} tokens")

    @classmethod
    def from_additional_config(cls, additional: Mapping[str, Any]) -> Self:
        """Raises:
        ValueError: a key is unknown or a value of the wrong kind; the message names it.
        """
        table = additional.get(CONFIG_KEY, {})
        if not isinstance(table, Mapping):
            raise ValueError(f"additional_config.{CONFIG_KEY} must be a table of settings")
        known = {field.name for field in fields(cls)}
        if odd := sorted(set(table) - known):
            raise ValueError(
                f"unknown {CONFIG_KEY} settings: {', '.join(odd)}; known: {', '.join(sorted(known))}"
            )
        values = dict(table)
        for name, value in values.items():
            _check(name, value)
        if "failures" in values:
            values["failures"] = Failures.from_table(values["failures"])
        return cls(**values)

    def as_additional_config(self) -> dict[str, Any]:
        return {CONFIG_KEY: asdict(self)}

    def step_time(self) -> StepTime:
        return StepTime(HardwareProfile.load(self.hardware), _model_profile(self.model))

    def pool_tokens(self) -> int:
        """Whole blocks of it.

        Raises:
            ValueError: the model does not fit on the hardware.
        """
        step_time = self.step_time()
        tokens = step_time.default_kv_tokens if self.kv_tokens is None else self.kv_tokens
        if tokens < BLOCK_TOKENS:
            raise ValueError(
                f"model {self.model!r} does not fit on hardware {self.hardware!r}: take another of either, "
                "or set kv_tokens"
            )
        return tokens // BLOCK_TOKENS * BLOCK_TOKENS


def _check(name: str, value: object) -> None:
    wanted: tuple[type, ...]
    match name:
        case "hardware" | "model":
            wanted = (str,)
        case "state_dir":
            wanted = (str, type(None))
        case "kv_tokens":
            wanted = (int, type(None))
        case "seed":
            wanted = (int,)
        case "failures":
            wanted = (Mapping,)
        case _:
            wanted = (int, float)
    if not isinstance(value, wanted) or isinstance(value, bool):
        names = " or ".join("null" if each is type(None) else each.__name__ for each in wanted)
        raise ValueError(f"{CONFIG_KEY}.{name} must be {names}, not {type(value).__name__}")


def _model_profile(name: str) -> ModelProfile:
    for known in model_names():
        profile = ModelProfile.load(known)
        if name.lower() in (known, profile.served_name.lower()):
            return profile
    return ModelProfile.load(name)  # raises with the names that there are

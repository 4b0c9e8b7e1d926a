"""What a simulated run is made of, apart from its workload."""

from dataclasses import dataclass
from enum import Enum
from math import inf

from loadgen.arrivals import Load
from loadgen.errors import LoadgenError
from loadgen.sim.tool_hosts import ToolHostShape
from marsproxy.core.policies import PolicyKind, policy_kind
from marsproxy.core.settings import AdmissionSettings, ConfigError, PolicySettings

BLOCK_TOKENS = 16
"""Tokens of a KV block: vLLM's default on CUDA."""

ENDLESS_S = 86_400.0
"""How long a simulated client lets a turn be held: as long as the setting allows. Real clients give up
after ten minutes and try again, which makes an overload worse for everybody; none of it is modelled."""

PATIENT = PolicySettings(admission=AdmissionSettings(max_hold_s=ENDLESS_S))
"""The policy's defaults, for clients that wait."""


class EngineKind(Enum):
    """What a simulated server runs its turns on."""

    MODEL = "model"
    """Of this project: fast, and close."""
    VLLM = "vllm"
    """The scheduler and the KV cache manager of the vLLM that is installed, step by step."""


class TokenEstimate(Enum):
    """What the policy is told of a prompt before its usage is known."""

    EXACT = "exact"
    BYTES = "bytes"
    """As the proxy guesses: bytes over four, so off by what the session's text is like."""


class Sizes(Enum):
    """What the policy knows of sessions that have not ended."""

    LEARNED = "learned"
    TRUE = "true"
    """An oracle's: peak context, work and gaps of every session."""
    NO_HISTORY = "no-history"
    """Priors only: nothing is ever learned."""


@dataclass(frozen=True, slots=True)
class SimulationSettings:
    policy: str
    load: Load
    seed: int = 0
    hardware: str = "h100"
    model: str = "qwen3-30b-a3b"
    kv_tokens: int | None = None
    """KV cache of each backend. Default: what fits beside the weights."""
    host_kv_tokens: int = 0
    """Host memory that a backend may copy idle KV to. 0: none, as stock vLLM."""
    backends: int = 1
    tools: ToolHostShape | None = None
    """None: each agent runs its tools on a machine of its own, of which the policy hears nothing."""
    max_batched_tokens: int = 8192
    max_running: int = 256
    policy_settings: PolicySettings = PATIENT
    takes_hints: bool = True
    """Whether the engine has the backend patch, so that it keeps and evicts as it is told. A policy that
    never hints gets stock vLLM either way."""
    engine: EngineKind = EngineKind.MODEL
    async_scheduling: bool = True
    """vLLM's default: the next step is scheduled while one runs."""
    telemetry_interval_s: float = 1.0
    telemetry_delay_s: float = 0.0
    """Age of a reading when the policy gets it."""
    token_estimate: TokenEstimate = TokenEstimate.EXACT
    sizes: Sizes = Sizes.LEARNED
    size_factor: float = 1.0
    """Every prediction of the policy is multiplied by this."""
    label: str | None = None
    """Name of the run in tables. Default: the policy's."""

    def __post_init__(self) -> None:
        for option, value, least in (
            ("--backends", self.backends, 1),
            ("--kv-tokens", self.kv_tokens, BLOCK_TOKENS),
            ("--host-kv-tokens", self.host_kv_tokens, 0),
            ("--max-num-batched-tokens", self.max_batched_tokens, 1),
            ("--max-num-seqs", self.max_running, 1),
        ):
            if value is not None and value < least:
                raise LoadgenError(f"{option} is {value}; allowed: {least} or more")
        if self.engine is EngineKind.VLLM and self.host_kv_tokens:
            raise LoadgenError("--host-kv-tokens is for --engine model: the real one has no host tier here")
        if self.engine is EngineKind.VLLM and self.max_batched_tokens < self.max_running:
            raise LoadgenError(
                "vLLM wants --max-num-batched-tokens to be at least --max-num-seqs, which are "
                f"{self.max_batched_tokens} and {self.max_running}"
            )
        if not 0 < self.telemetry_interval_s < inf:
            raise LoadgenError("the telemetry interval must be above 0 seconds")
        if not 0 <= self.telemetry_delay_s < inf or not 0 < self.size_factor < inf:
            raise LoadgenError("the telemetry delay must be at least 0, the size factor above 0")

    @property
    def kind(self) -> PolicyKind:
        try:
            return policy_kind(self.policy)
        except ConfigError as exc:
            raise LoadgenError(f"--{exc}") from exc

    @property
    def is_patched(self) -> bool:
        """Whether the engine orders and leases as the backend patch does. Policies that hint and are not
        written for it get an engine that does as they say and is stock vLLM else."""
        return self.takes_hints and self.kind.has_patch

    @property
    def backend_names(self) -> list[str]:
        return [f"engine-{i}" for i in range(self.backends)]

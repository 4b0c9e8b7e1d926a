"""What a simulated run is made of, apart from its workload."""

from dataclasses import dataclass
from enum import Enum

from loadgen.arrivals import Load
from loadgen.errors import LoadgenError
from loadgen.sim.tool_hosts import ToolHostShape
from marsproxy.core.policies import PolicyKind, policy_kind
from marsproxy.core.settings import AdmissionSettings, ConfigError, PolicySettings

ENDLESS_S = 86_400.0
"""How long a simulated client lets a turn be held: as long as the setting allows. Real clients give up
after ten minutes and try again, which makes an overload worse for everybody; none of it is modelled."""


PATIENT = PolicySettings(admission=AdmissionSettings(max_hold_s=ENDLESS_S))
"""The policy's defaults, for clients that wait."""


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
        if self.backends < 1:
            raise LoadgenError(f"--backends is {self.backends}; allowed: 1 or more")
        if self.telemetry_interval_s <= 0:
            raise LoadgenError("the telemetry interval must be above 0 seconds")
        if self.telemetry_delay_s < 0 or self.size_factor <= 0:
            raise LoadgenError("the telemetry delay must be at least 0, the size factor above 0")

    @property
    def kind(self) -> PolicyKind:
        try:
            return policy_kind(self.policy)
        except ConfigError as exc:
            raise LoadgenError(f"--{exc}") from exc

    @property
    def backend_names(self) -> list[str]:
        return [f"engine-{i}" for i in range(self.backends)]

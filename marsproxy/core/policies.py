"""The policies by name: how each is made, and what it needs of the engine behind it.

One table for ``marsproxy serve --policy``, for the simulator and for the documentation.
"""

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, replace
from typing import Literal

from marsproxy.core.baselines.autellix import Autellix
from marsproxy.core.baselines.concur import Concur
from marsproxy.core.baselines.continuum import continuum, continuum_dy
from marsproxy.core.baselines.fcfs import Fcfs
from marsproxy.core.baselines.infercept import InferCept
from marsproxy.core.baselines.priority import ContinuationsFirst
from marsproxy.core.baselines.static_cap import StaticCap
from marsproxy.core.baselines.thunderagent import ThunderAgent, ThunderAgentAsPublished
from marsproxy.core.policy import Policy
from marsproxy.core.scheduling import SchedulingPolicy
from marsproxy.core.settings import ConfigError, Parts, PolicySettings

EngineOrder = Literal["fcfs", "priority"]
"""vLLM's ``--scheduling-policy``."""


@dataclass(frozen=True, slots=True)
class PolicyKind:
    about: str
    """One line, with its source."""
    make: Callable[[PolicySettings, Sequence[str]], SchedulingPolicy]
    engine_order: EngineOrder
    needs_hints: bool = False
    """Is not itself without an engine that takes ``HintKv``: a stock vLLM behind the proxy is no comparison,
    one with the backend patch is."""
    needs_reprioritise: bool = False
    """Is not itself without an engine that takes ``Reprioritise``: no vLLM does, only the simulated one."""
    parts: Parts | None = None
    """Of a policy that is MARS, whole or in part: which of its parts work."""
    has_patch: bool = False
    """An engine that takes its hints is vLLM with this project's backend patch, which brings an order of its
    own."""


def _mars(about: str, parts: Parts, engine_order: EngineOrder = "priority") -> PolicyKind:
    def make(settings: PolicySettings, backends: Sequence[str]) -> SchedulingPolicy:
        return Policy(replace(settings, parts=parts), backends)

    return PolicyKind(about, make, engine_order, parts=parts, has_patch=parts.retention)


NOTHING = Parts(
    gpu_budget=False,
    cpu_budget=False,
    order=False,
    priority=False,
    retention=False,
    valve=False,
    correction=False,
)

POLICIES: Mapping[str, PolicyKind] = {
    "mars": PolicyKind("this project's policy", Policy, "priority", parts=Parts(), has_patch=True),
    "mars_admission": _mars(
        "MARS, only its two budgets", replace(NOTHING, gpu_budget=True, cpu_budget=True), "fcfs"
    ),
    "mars_gpu": _mars("MARS, only its budget of KV tokens", replace(NOTHING, gpu_budget=True), "fcfs"),
    "mars_cpu": _mars("MARS, only its budget of the tool hosts", replace(NOTHING, cpu_budget=True), "fcfs"),
    "mars_priority": _mars("MARS, only its order in the engine", replace(NOTHING, priority=True)),
    "mars_retention": _mars("MARS, only its leases and evictions", replace(NOTHING, retention=True), "fcfs"),
    "fcfs": PolicyKind("stock vLLM, first come, first served", Fcfs, "fcfs"),
    "priority": PolicyKind(
        "stock vLLM, continuations tagged before new sessions", ContinuationsFirst, "priority"
    ),
    "static_cap": PolicyKind(
        "a fixed number of sessions at once, first come, first served", StaticCap, "fcfs"
    ),
    "continuum": PolicyKind(
        "pins of 2 s for tools that are back by then, jobs in order of arrival (arXiv 2511.02230)",
        continuum,
        "priority",
        needs_hints=True,
    ),
    "continuum_dy": PolicyKind(
        "pins for as long as its cost model finds worth it, jobs in order of arrival (arXiv 2511.02230)",
        continuum_dy,
        "priority",
        needs_hints=True,
    ),
    "autellix": PolicyKind(
        "PLAS: the program that was served least goes first (arXiv 2502.13965)",
        Autellix,
        "priority",
        needs_hints=True,
        needs_reprioritise=True,
    ),
    "infercept": PolicyKind(
        "preserve, discard or swap while a tool runs, by least waste (arXiv 2402.01869)",
        InferCept,
        "priority",
        needs_hints=True,
    ),
    "thunderagent": PolicyKind(
        "pause and resume on a tick (arXiv 2602.13692), marking repaired", ThunderAgent, "fcfs"
    ),
    "thunderagent_default": PolicyKind(
        "pause and resume on a tick (arXiv 2602.13692), marking as published", ThunderAgentAsPublished, "fcfs"
    ),
    "concur": PolicyKind(
        "a window of active agents, AIMD on cache signals (arXiv 2601.22705)", Concur, "fcfs"
    ),
}


def policy_kind(name: str) -> PolicyKind:
    """Raises ``ConfigError`` for a name that is not in the table."""
    if name not in POLICIES:
        raise ConfigError(f"policy: {name!r} is not known; allowed: {', '.join(sorted(POLICIES))}")
    return POLICIES[name]

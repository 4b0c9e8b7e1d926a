"""What the loop asks of one simulated vLLM, and the turns that go through it.

Two engines serve behind it: ``loadgen.sim.server`` has the model of one, ``loadgen.sim.vllm_server`` the
real scheduler of an installed vLLM. Neither knows agents, nor the loop the engines' insides.
"""

from collections.abc import Iterable
from dataclasses import dataclass
from typing import Protocol

from loadgen.engine.requests import EngineRequest
from loadgen.records import TurnRecord
from loadgen.workload import Turn
from marsproxy.core.commands import ForwardTurn, HintKv
from marsproxy.core.events import BackendObserved, Event, HintAnswered, TurnProgressed

PROGRESS_TOKENS = 256
"""Of an answer, between two reports on it: some seconds of decoding. A live proxy reports a stream every
second; the policies that listen go by thresholds of thousands of tokens."""


@dataclass(slots=True, eq=False)
class SimTurn:
    """A request of an agent, from its arrival at the policy to its last token."""

    id: str
    session_id: str
    system_id: str | None
    system_tokens: int
    prompt_tokens: int
    turn: Turn
    record: TurnRecord
    request: EngineRequest | None = None
    """Of the model only."""
    server: "Backend | None" = None
    has_first_token: bool = False
    cached_tokens: int | None = None
    """Of its prompt; None until it has ended."""
    told_tokens: int = 0
    """Of its answer, as many as the policy was told of."""


class Backend(Protocol):
    @property
    def name(self) -> str: ...

    @property
    def kv_tokens(self) -> int: ...

    @property
    def step_ends_s(self) -> float | None: ...

    @property
    def has_work(self) -> bool: ...

    @property
    def preemptions(self) -> int:
        """Since the start, as the next."""

    @property
    def steps(self) -> int: ...

    @property
    def about(self) -> str:
        """What runs here, for the run's provenance."""

    def forward(self, turn: SimTurn, command: ForwardTurn, now: float) -> None: ...

    def start(self, now: float) -> None:
        """Begin a step if none runs and there is work."""

    def finish_step(self) -> tuple[list[SimTurn], list[SimTurn]]:
        """Turns that got their first token in the step that ends now, and those that got their last."""

    def take_events(self) -> list[Event]:
        """What became of leases and hints since the last call."""

    def progress(self, now: float) -> Iterable[TurnProgressed]:
        """Of the turns whose answers have grown by ``PROGRESS_TOKENS`` since the policy was last told."""

    def try_hint(self, hint: HintKv, now: float) -> HintAnswered | None:
        """The answer, where there is one to give at once; a stock engine hears nothing."""

    def try_reprioritise(self, turn: SimTurn, priority: int, now: float) -> None: ...

    def reading(self, now: float) -> BackendObserved: ...

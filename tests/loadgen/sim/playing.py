"""What the simulator's tests are written with: a server whose every step takes a second, small sessions,
policies that do as they are told, and everything that a policy heard."""

from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from typing import Any, TypeVar

from backend_patch.step_time import HardwareProfile, ModelProfile, StepTime
from loadgen.arrivals import AsTraced, Load
from loadgen.records import SessionRecord, TurnRecord
from loadgen.sim.settings import SimulationSettings
from loadgen.sim.simulation import Simulation
from loadgen.workload import Session, ToolCall, Turn
from marsproxy.core.commands import Command, ForwardTurn, RejectTurn
from marsproxy.core.events import Event, TurnArrived
from marsproxy.core.scheduling import SchedulingPolicy

SECOND_STEPS = HardwareProfile(
    "seconds", "every step takes a second, whatever is in it", "made up",
    peak_flops=1e40, memory_bytes_per_s=1e40, memory_bytes=1e12, memory_utilization=0.9, reserved_bytes=0,
    compute_efficiency=1.0, memory_efficiency=1.0, step_overhead_s=1.0,
)  # fmt: skip

EventT = TypeVar("EventT", bound=Event)


def second_steps() -> StepTime:
    return StepTime(SECOND_STEPS, ModelProfile.load("qwen3-30b-a3b"))


def session(name: str, *turns: Turn, at_s: float = 0.0, **fields: Any) -> Session:
    return Session(name, list(turns), arrival_s=at_s, **fields)


def tool(seconds: float, cores: float = 1.0, memory_mb: float = 0.0, name: str = "bash") -> ToolCall:
    return ToolCall(name, seconds, cores, memory_mb)


@dataclass
class Played:
    sessions: dict[str, SessionRecord]
    turns: dict[tuple[str, int], TurnRecord]
    """By session and number."""
    log: list[tuple[float, Event, list[Command]]] = field(default_factory=list)
    end_s: float = 0.0
    simulation: Simulation | None = None

    def heard(self, kind: type[EventT]) -> list[tuple[float, EventT]]:
        return [(now, event) for now, event, _ in self.log if isinstance(event, kind)]

    def ordered(self, kind: type[Any]) -> list[tuple[float, Any]]:
        return [
            (now, command) for now, _, commands in self.log for command in commands if type(command) is kind
        ]


def play(
    sessions: Sequence[Session],
    policy: str | SchedulingPolicy = "fcfs",
    load: Load | None = None,
    *,
    kv_tokens: int = 16_000,
    engine_of: str = "fcfs",
    **settings: Any,
) -> Played:
    """The sessions at their arrival times, if no load is given. A policy that is no name gets the engine that
    ``engine_of`` has."""
    name = policy if isinstance(policy, str) else engine_of
    chosen = SimulationSettings(name, load or AsTraced(), kv_tokens=kv_tokens, **settings)
    made = policy
    if isinstance(made, str):
        made = chosen.kind.make(chosen.policy_settings, chosen.backend_names)
    log: list[tuple[float, Event, list[Command]]] = []
    simulation = Simulation(
        chosen, sessions, made, second_steps(), kv_tokens,
        on_event=lambda now, event, commands: log.append((now, event, list(commands))),
    )  # fmt: skip
    end_s = simulation.run()
    return Played(
        {record.session: record for record in simulation.records},
        {(record.session, record.turn): record for record in simulation.turns},
        log,
        end_s,
        simulation,
    )


class Scripted:
    """Lets every turn go at once, unless ``answer`` has other orders for an event."""

    def __init__(self, answer: Callable[[Event, float], list[Command] | None]) -> None:
        self._answer = answer

    def handle(self, event: Event, now: float) -> list[Command]:
        orders = self._answer(event, now)
        if orders is None:
            orders = [go(event)] if isinstance(event, TurnArrived) else []
        return orders


def go(arrival: TurnArrived, priority: int = 0) -> ForwardTurn:
    return ForwardTurn(arrival.turn_id, "engine-0", priority, "new")


def refused(played: Played) -> list[RejectTurn]:
    return [command for _, command in played.ordered(RejectTurn)]

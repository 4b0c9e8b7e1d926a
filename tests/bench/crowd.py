"""A crowd of agents that keeps a policy busy: so many sessions in its table, in realistic shares.

A quarter of the sessions are at work, a few more than the pools have room for: about 20 % counted (in
flight or in a tool gap), 5 % held, the rest idle. Whoever is done goes on with an idle session of its own
or begins a new one, for which a full table forgets its longest quiet. All from one seed, in virtual time.
"""

import heapq
from collections.abc import Callable
from dataclasses import dataclass, field
from itertools import count
from random import Random

from marsproxy.core.commands import Command, ForwardTurn, HoldTurn, RejectTurn, SetTimer
from marsproxy.core.events import (
    BackendObserved,
    Ending,
    Event,
    TimerFired,
    ToolHostsObserved,
    ToolObserved,
    ToolPhase,
    TurnArrived,
    TurnEnded,
    TurnFirstToken,
)
from marsproxy.core.evidence import TurnKind
from marsproxy.core.policy import Policy
from marsproxy.core.settings import AdmissionSettings, PolicySettings, SessionSettings

WORKING, COUNTED = 0.25, 0.20
"""Shares of the sessions: at work, and those of them that the pools have room for."""
FOOTPRINT_TOKENS = 11_000
"""About what one is charged; the pools follow from it."""
LONGEST_TOKENS = 15_000
"""From which on a session is not taken up again."""
RETURNS = 0.3
"""Share of the jobs that go on with an idle session."""
TURNS = 5
"""Of a job, on average."""
TURN_S, GAP_S = 6.0, 3.0
SIGNATURES = ("bash", "edit", "grep", "pytest", "read", "search")
COMMANDS = 300
"""Different ones: agents on one kind of task run much the same."""
GATHERING_S = 600.0
"""So that sessions do not all grow old at the same instant."""
ENDLESS_S = 86_400.0


@dataclass(frozen=True, slots=True)
class Shape:
    sessions: int
    backends: int = 1
    tenants: int = 50
    families: int = 20
    tool_hosts: int = 4
    seed: int = 1


@dataclass(slots=True)
class Worker:
    """An agent: it has one job after the other."""

    session_id: str
    tenant: str
    family: str
    context_tokens: int = 0
    turn: int = 0
    turns_left: int = 0
    turn_id: str = ""
    idle: list[tuple[str, int]] = field(default_factory=list)
    """Sessions that it left behind, with their contexts."""


Watch = Callable[[Event, float], list[Command]]


class Crowd:
    """``handle`` may be put in the place of the policy's own, to watch it."""

    def __init__(self, shape: Shape) -> None:
        self.shape = shape
        self.now = 0.0
        self.told = 0
        """Events so far."""
        self.policy = Policy(
            PolicySettings(
                admission=AdmissionSettings(max_hold_s=ENDLESS_S),
                sessions=SessionSettings(max_sessions=shape.sessions, idle_expiry_s=7 * ENDLESS_S),
            ),
            [f"engine-{i}" for i in range(shape.backends)],
        )
        self.handle: Watch = self.policy.handle
        self._random = Random(shape.seed)
        self._numbers = count()
        self._due: list[tuple[float, int, Callable[[], None]]] = []
        self._timer = 0
        self._is_gathering = True
        self._workers: dict[str, Worker] = {}
        """By the turn that is held or in flight."""
        per_backend = COUNTED * shape.sessions / shape.backends
        self._pool_tokens = round(per_backend * FOOTPRINT_TOKENS / 0.9)

    def gather(self) -> None:
        """Fill the table, and let everybody begin: the first readings, the idle, then those at work."""
        for i in range(self.shape.backends):
            self._read_backend(i)
        for i in range(self.shape.tool_hosts):
            self._read_host(i)
        working = max(2, round(WORKING * self.shape.sessions))
        workers = [self._new_worker() for _ in range(working)]
        for i in range(self.shape.sessions - working):
            self.now += GATHERING_S / self.shape.sessions
            self._leave_idle(workers[i % working])
        self._is_gathering = False
        for worker in workers:
            self._later(self._random.uniform(0, TURNS * (TURN_S + GAP_S)), lambda w=worker: self._begin(w))

    def play(self, events: int) -> None:
        """Until so many more events were told."""
        until = self.told + events
        while self.told < until:
            at_s, _, call = heapq.heappop(self._due)
            self.now = max(self.now, at_s)
            call()

    def shares(self) -> dict[str, float]:
        policy, rows = self.policy, len(self.policy.sessions)
        counted = sum(len(backend.counted) for backend in policy.backends.values())
        in_flight = policy.open_turns - len(policy.held)
        return {
            "in flight": in_flight / rows,
            "in a gap": (counted - in_flight) / rows,
            "held": len(policy.held) / rows,
            "idle": (rows - counted - len(policy.held)) / rows,
        }

    # -- agents -----------------------------------------------------------------------------------

    def _new_worker(self) -> Worker:
        number = next(self._numbers)
        family = f"family-{number % self.shape.families}"
        return Worker(f"s{number}", f"tenant-{number % self.shape.tenants}", family)

    def _leave_idle(self, worker: Worker) -> None:
        """A session of one question and one answer."""
        self._new_session(worker)
        worker.turns_left = 1
        self._arrive(worker)
        self._end(worker, worker.turn_id)

    def _new_session(self, worker: Worker) -> None:
        worker.session_id = f"s{next(self._numbers)}"
        worker.context_tokens, worker.turn = 0, 0

    def _begin(self, worker: Worker) -> None:
        if worker.idle and worker.idle[-1][1] < LONGEST_TOKENS and self._random.random() < RETURNS:
            worker.session_id, worker.context_tokens = worker.idle.pop()
            worker.turn = 1
        else:
            self._new_session(worker)
        worker.turns_left = self._random.randint(1, 2 * TURNS - 1)
        self._arrive(worker)

    def _arrive(self, worker: Worker) -> None:
        kind = TurnKind.CONTINUATION if worker.turn else TurnKind.FIRST
        worker.turn += 1
        worker.context_tokens += round(self._random.lognormvariate(6.5, 0.8))
        worker.turn_id = turn_id = f"t{next(self._numbers)}"
        self._workers[turn_id] = worker
        self._tell(
            TurnArrived(
                turn_id,
                worker.session_id,
                kind,
                worker.tenant,
                worker.family,
                prompt_tokens_estimate=worker.context_tokens,
                turn=worker.turn,
            )
        )

    def _go(self, worker: Worker) -> None:
        took_s = self._random.expovariate(1 / TURN_S)
        turn_id = worker.turn_id
        self._later(took_s / 4, lambda: self._tell(TurnFirstToken(turn_id)))
        self._later(took_s, lambda: self._end(worker, turn_id))

    def _end(self, worker: Worker, turn_id: str) -> None:
        if self._workers.pop(turn_id, None) is None:
            return  # one of those that were over at once
        worker.turns_left -= 1
        prompt, answer = worker.context_tokens, round(self._random.lognormvariate(5.5, 0.7))
        worker.context_tokens = prompt + answer
        tool = self._random.choice(SIGNATURES) if worker.turns_left else None
        digest = f"{self._random.randrange(COMMANDS):064x}"
        self._tell(
            TurnEnded(
                turn_id,
                Ending.FINISHED,
                prompt_tokens=prompt,
                cached_tokens=round(0.9 * prompt) if worker.turn > 1 else 1_000,
                completion_tokens=answer,
                tool_calls=1 if tool else 0,
                tool_signature=tool,
                command_digests=(digest,) if tool else (),
            )
        )
        if tool:
            self._run_tool(worker, tool, digest)
        else:
            worker.idle.append((worker.session_id, worker.context_tokens))
            del worker.idle[:-4]
            if not self._is_gathering:
                self._later(GAP_S, lambda: self._begin(worker))

    def _run_tool(self, worker: Worker, tool: str, digest: str) -> None:
        run_s = self._random.lognormvariate(0, 1.5)
        exec_id = f"x{next(self._numbers)}"
        session = worker.session_id if self._random.random() < 0.5 else None

        def step(phase: ToolPhase) -> None:
            self._tell(
                ToolObserved(
                    exec_id,
                    phase,
                    "g",
                    llm_session=session,
                    command_digest=digest,
                    tool_signature=tool,
                    memory_peak_mb=200.0 if phase is ToolPhase.FINISHED else None,
                )
            )
            if phase is ToolPhase.FINISHED:
                self._later(0.05, lambda: self._arrive(worker))

        for phase, after_s in (
            (ToolPhase.QUEUED, 0),
            (ToolPhase.STARTED, 0.1),
            (ToolPhase.FINISHED, 0.1 + run_s),
        ):
            self._later(after_s, lambda phase=phase: step(phase))

    # -- readings and the policy ------------------------------------------------------------------

    def _read_backend(self, number: int) -> None:
        self._tell(BackendObserved(f"engine-{number}", kv_tokens_total=self._pool_tokens, takes_hints=True))
        self._later(1.0, lambda: self._read_backend(number))

    def _read_host(self, number: int) -> None:
        self._tell(
            ToolHostsObserved(
                cores=64,
                running=20,
                queued=0,
                host=f"host-{number}",
                memory_available_mb=200_000,
                memory_total_mb=256_000,
            )
        )
        self._later(1.0, lambda: self._read_host(number))

    def _later(self, delay_s: float, call: Callable[[], None]) -> None:
        heapq.heappush(self._due, (self.now + delay_s, next(self._numbers), call))

    def _tell(self, event: Event) -> None:
        self.told += 1
        for command in self.handle(event, self.now):
            match command:
                case ForwardTurn():
                    self._go(self._workers[command.turn_id])
                case SetTimer():
                    self._timer = number = next(self._numbers)
                    heapq.heappush(self._due, (command.at_s, number, lambda n=number: self._ring(n)))
                case RejectTurn():
                    raise AssertionError("the crowd is patient, and the table has room for its turns")
                case HoldTurn() | _:
                    pass

    def _ring(self, number: int) -> None:
        if number == self._timer:
            self._tell(TimerFired())

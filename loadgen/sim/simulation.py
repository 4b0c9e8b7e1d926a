"""The loop: agents, policy, engines and tool hosts on one virtual clock.

Theory of operation. Three kinds of things happen at a time of their own: entries of the agenda
(arrivals, ends of pauses, readings, the policy's timer), ends of engine steps, and changes on the tool
hosts. The loop goes to the earliest, lets all of that instant happen, enacts what the policy orders on
the way, and then lets every engine that is not in a step begin one.

The policy is the live one, told the same events in the same order as the proxy would tell them; its
shell is all that is different here. Not modelled: the network, the proxy's own time (a millisecond
beside steps of ten), clients that give up.
"""

from collections.abc import Callable, Sequence
from functools import partial
from itertools import count
from random import Random
from typing import assert_never

from backend_patch.step_time import StepTime
from loadgen.arrivals import ClosedLoop, arrival_times
from loadgen.records import SessionRecord, TurnRecord
from loadgen.sim.agenda import Agenda
from loadgen.sim.agent import Agent, tokens_off
from loadgen.sim.backend import Backend, SimTurn
from loadgen.sim.server import Server
from loadgen.sim.settings import EngineKind, SimulationSettings
from loadgen.sim.step_ends import StepEnds
from loadgen.sim.telemetry import Telemetry
from loadgen.sim.tool_hosts import ToolHosts, ToolStep, is_apart
from loadgen.sim.vllm_server import open_vllm_server
from loadgen.workload import Session
from marsproxy.core.commands import (
    Command,
    ForgetSession,
    ForwardTurn,
    HintKv,
    HoldTurn,
    Reason,
    RejectTurn,
    Reprioritise,
    SetTimer,
)
from marsproxy.core.events import (
    Ending,
    Event,
    HintAnswered,
    TimerFired,
    ToolObserved,
    ToolPhase,
    TurnArrived,
    TurnEnded,
    TurnFirstToken,
)
from marsproxy.core.evidence import TurnKind
from marsproxy.core.scheduling import SchedulingPolicy

OnEvent = Callable[[float, Event, list[Command]], None]
"""Gets what the policy was told, when, and its commands."""


MAX_TIMERS_AT_ONCE = 10_000
"""Some policies do a bounded part of a long list at a time and go on at once; none needs so many times."""


class SimulationStuckError(RuntimeError):
    """Sessions are left and nothing is due, as the policy holds turns and has asked for no timer; or it asks
    for one timer after the other, and nothing else ever comes."""


class Simulation:
    def __init__(
        self,
        settings: SimulationSettings,
        sessions: Sequence[Session],
        policy: SchedulingPolicy,
        step_time: StepTime,
        kv_tokens: int,
        *,
        on_session: Callable[[SessionRecord], None] = lambda _record: None,
        on_event: OnEvent | None = None,
    ) -> None:
        self.settings = settings
        self.policy = policy
        self.turns: list[TurnRecord] = []
        self.records: list[SessionRecord] = []
        open_server = open_vllm_server if settings.engine is EngineKind.VLLM else Server
        self.servers: dict[str, Backend] = {
            name: open_server(name, settings, step_time, kv_tokens) for name in settings.backend_names
        }
        self._steps = StepEnds(self.servers.values())
        self.hosts = ToolHosts(settings.tools)
        self.agenda = Agenda()
        self._turns: dict[str, SimTurn] = {}
        self._agents: dict[str, Agent] = {}
        self._waiting = list(reversed(sessions))
        """Not started, the next one last."""
        self._planned = len(sessions)
        self._on_session = on_session
        self._on_event = on_event
        self._turn_numbers = count(1)
        self._timer_number = 0
        self._timer_s: float | None = None
        """When the last one fired, and how many did in that instant."""
        self._timers_now = 0
        self._tokens_off = Random(f"tokens/{settings.seed}")
        self._telemetry = Telemetry(
            self.servers.values(),
            self.hosts,
            self.agenda,
            self._turns,
            self._tell,
            interval_s=settings.telemetry_interval_s,
            delay_s=settings.telemetry_delay_s,
        )

    def run(self) -> float:
        """Play all sessions; the virtual seconds it took."""
        load = self.settings.load
        if isinstance(load, ClosedLoop):
            for _ in range(min(load.agents, len(self._waiting))):
                self.agenda.add(0.0, self._start_next)
        else:
            sessions, self._waiting = self._waiting[::-1], []
            for at_s, session in zip(
                arrival_times(load, sessions, self.settings.seed), sessions, strict=True
            ):
                self.agenda.add(at_s, partial(self._start, session))
        now = 0.0
        while len(self.records) < self._planned:
            next_s = self._next_s()
            if next_s is None:
                raise SimulationStuckError(f"{len(self._agents)} sessions are stuck at {now:.3f} s")
            now = max(now, next_s)
            self._happen(now)
        return now

    def _next_s(self) -> float | None:
        due = (self.agenda.next_s, self._steps.next_s, self.hosts.next_change_s)
        return min((at_s for at_s in due if at_s is not None), default=None)

    def _happen(self, now: float) -> None:
        for server in self._steps.due(now):
            self._step_ended(server, now)
        change_s = self.hosts.next_change_s
        if change_s is not None and change_s <= now:
            self._tool_steps(self.hosts.advance(now), now)
        self.agenda.call_due(now)
        self._steps.start(now)

    # -- agents -----------------------------------------------------------------------------------

    def _start_next(self, now: float) -> None:
        if self._waiting:
            self._start(self._waiting.pop(), now)

    def _start(self, session: Session, now: float) -> None:
        agent = Agent(session, now, tokens_off(self.settings.token_estimate, self._tokens_off))
        self._agents[session.id] = agent
        self.send(agent, now)

    def send(self, agent: Agent, now: float) -> None:
        """The agent's next request arrives at the proxy."""
        session, index = agent.session, agent.next_turn
        turn = session.turns[index]
        prompt = agent.context_tokens + turn.new_tokens
        record = TurnRecord(session.id, index + 1, index > 0, due_s=now, sent_s=now, prompt_tokens=prompt)
        turn_id = f"t{next(self._turn_numbers):x}"
        self._turns[turn_id] = SimTurn(
            turn_id, session.id, session.system_id, session.system_tokens, prompt, turn, record
        )
        agent.next_turn += 1
        self._telemetry.turn_arrived(now)
        self.tell(
            TurnArrived(
                turn_id=turn_id,
                session_id=session.id,
                kind=TurnKind.CONTINUATION if index else TurnKind.FIRST,
                tenant=session.tenant or "",
                family=session.system_id or "",
                prompt_tokens_estimate=round(prompt * agent.tokens_off),
                turn=index + 1,
                is_streaming=True,
            ),
            now,
        )

    def _answered(self, turn: SimTurn, now: float) -> None:
        """The last token is out: tell, and let the gap begin."""
        del self._turns[turn.id]
        agent, record, tool = self._agents[turn.session_id], turn.record, turn.turn.tool
        record.last_token_s, record.status = now, 200
        record.cached_tokens, record.output_tokens = turn.cached_tokens, turn.turn.output_tokens
        agent.count(record)
        self.turns.append(record)
        self.tell(
            TurnEnded(
                turn.id,
                Ending.FINISHED,
                prompt_tokens=turn.prompt_tokens,
                cached_tokens=turn.cached_tokens,
                completion_tokens=turn.turn.output_tokens,
                tool_calls=1 if tool else 0,
                tool_signature=tool.name if tool else None,
            ),
            now,
        )
        if agent.is_done:
            self._leave(agent, now)
        elif tool is not None:
            record.tool, record.tool_start_s = tool.name, now
            agent.gap_record = record
            self._tool_steps(self.hosts.submit(turn.session_id, tool, now), now)
        else:
            self._think(agent, turn.turn.think_s, now)

    def _refused(self, turn: SimTurn, reason: Reason, now: float) -> None:
        """The session is lost: its client does not try again."""
        agent, record = self._agents[turn.session_id], turn.record
        record.held_s = now - record.sent_s
        record.error = agent.record.error = reason.value
        self.turns.append(record)
        self._leave(agent, now)

    def _think(self, agent: Agent, think_s: float | None, now: float) -> None:
        if think_s:
            self.agenda.add(now + think_s, lambda at_s: self.send(agent, at_s))
        else:
            self.send(agent, now)

    def _leave(self, agent: Agent, now: float) -> None:
        if agent.record.error is None:
            agent.record.end_s = now
        del self._agents[agent.session.id]
        self.records.append(agent.record)
        self._on_session(agent.record)
        if isinstance(self.settings.load, ClosedLoop):
            self.agenda.add(now, self._start_next)

    # -- tools ------------------------------------------------------------------------------------

    def _tool_steps(self, steps: list[ToolStep], now: float) -> None:
        for step in steps:
            agent = self._agents[step.key]
            record = agent.gap_record
            assert record is not None, "only an agent in its gap runs a tool"
            turn = agent.session.turns[record.turn - 1]
            assert turn.tool is not None
            if self.settings.tools is not None and not is_apart(turn.tool):
                self.tell(tool_observed(step, record), now)
            if step.phase is ToolPhase.FINISHED:
                record.tool_queue_s, record.tool_run_s, record.tool_end_s = step.queue_s, step.run_s, now
                agent.gap_record = None
                self._think(agent, turn.think_s, now)

    # -- engines ----------------------------------------------------------------------------------

    def _step_ended(self, server: Backend, now: float) -> None:
        self._steps.touch(server)
        first, last = server.finish_step()
        for turn in first:
            turn.record.first_token_s = now
            self.tell(TurnFirstToken(turn.id), now)
        for turn in last:
            self._answered(turn, now)
        for event in server.take_events():
            self.tell(event, now)

    # -- policy -----------------------------------------------------------------------------------

    def tell(self, event: Event, now: float) -> None:
        self._telemetry.refresh(now)
        self._tell(event, now)

    def _tell(self, event: Event, now: float) -> None:
        commands = self.policy.handle(event, now)
        if self._on_event is not None:
            self._on_event(now, event, commands)
        # What engines answer is an event of its own: it must not come between two orders of this one.
        answers = [answer for command in commands if (answer := self._enact(command, now)) is not None]
        for answer in answers:
            self._tell(answer, now)

    def _enact(self, command: Command, now: float) -> HintAnswered | None:
        match command:
            case ForwardTurn():
                turn = self._turns[command.turn_id]
                turn.record.held_s = now - turn.record.sent_s
                turn.record.decision = command.decision
                self._touched(command.backend).forward(turn, command, now)
            case HoldTurn() | ForgetSession():
                pass
            case RejectTurn():
                self._refused(self._turns.pop(command.turn_id), command.reason, now)
            case HintKv():
                return self._touched(command.backend).try_hint(command, now)
            case Reprioritise():
                turn = self._turns[command.turn_id]
                if turn.server is not None:
                    self._touched(turn.server.name).try_reprioritise(turn, command.priority, now)
            case SetTimer():
                self._timer_number += 1
                self.agenda.add(command.at_s, self._timer(self._timer_number))
            case _:
                assert_never(command)
        return None

    def _touched(self, name: str) -> Backend:
        """The server, to which something is about to happen."""
        server = self.servers[name]
        self._steps.touch(server)
        return server

    def _timer(self, number: int) -> Callable[[float], None]:
        def fire(now: float) -> None:
            if number == self._timer_number:
                self._check_progress(now)
                self.tell(TimerFired(), now)

        return fire

    def _check_progress(self, now: float) -> None:
        """A policy may ask for a timer at once, but not again and again."""
        self._timers_now = self._timers_now + 1 if now == self._timer_s else 1
        self._timer_s = now
        if self._timers_now > MAX_TIMERS_AT_ONCE:
            raise SimulationStuckError(f"timer after timer at {now:.3f} s, and time does not pass")


def tool_observed(step: ToolStep, record: TurnRecord) -> ToolObserved:
    """What the gateway would say of a step of the tool that runs after the recorded turn."""
    return ToolObserved(
        f"{step.key}/{record.turn}",
        step.phase,
        gateway_session=step.key,
        llm_session=step.key,
        queue_s=step.queue_s,
        run_s=step.run_s,
        tool_signature=record.tool,
        memory_peak_mb=step.memory_peak_mb,
    )

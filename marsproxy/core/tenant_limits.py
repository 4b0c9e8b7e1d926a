"""Limits of tenants, in front of whichever policy decides.

``LimitedPolicy`` is a ``SchedulingPolicy`` around another. A turn that its tenant may not have yet waits
here, and the policy is told of it when it may; one that its tenant may not have at all is refused here.
So the limits are the same for all policies, and none of them has to know of tenants but for their weights.

Theory of operation. A tenant has three limits, asked in this order.

- *Open turns*, held and in flight: one more is refused at once. It is the bound on what a tenant can lay on
  the queue, so nothing of it may wait.
- *Tokens*: charged when a turn ends, for only then its cost is known. Until then the mean of the tenant's
  turns is set aside for each that goes, so that a hundred turns do not all go on one balance. In debt, turns
  wait, in order of arrival: the debt is paid off at a known rate, and whoever waits in line is served at
  the very moment and need not send its history again.
- *Sessions* that are at work: one more waits until one of them rests.

What would wait longer than ``MAX_WAIT_S`` is refused instead, with the time when it is worth another try.
A tenant that is not named has no limits, and costs one entry of a table for each open turn.

What is learned of a named tenant's families is its own: the policy hears of them by names that no other has.

Without tenants every event is passed on as it comes, and every command as it is given.
"""

from collections.abc import Iterator
from dataclasses import replace
from itertools import chain

from marsproxy.core.commands import (
    Command,
    ForwardTurn,
    HoldTurn,
    Reason,
    RejectTurn,
    SetTimer,
)
from marsproxy.core.events import (
    Ending,
    Event,
    SessionEnded,
    StandingAlone,
    StandingTogether,
    TenantLimits,
    TenantsChanged,
    TimerFired,
    TurnArrived,
    TurnBounced,
    TurnEnded,
    TurnProgressed,
    TurnResumed,
)
from marsproxy.core.headroom import BackendState, ToolHosts
from marsproxy.core.scheduling import SchedulingPolicy
from marsproxy.core.sessions import Phase, SessionTable
from marsproxy.core.tenant_use import LimitedTurn, TenantUse, Waiting, WaitingLine
from marsproxy.core.tool_joins import JoinedBy

LIMIT_REASONS = frozenset((Reason.TENANT_TURNS, Reason.TENANT_SESSIONS, Reason.TENANT_TOKENS))
"""What holds or refuses a turn here, and nowhere else."""
MAX_WAIT_S = 240.0
"""Seconds that a turn may wait for its own tenant. Less than half of the 600 s that the OpenAI and Anthropic
clients wait by default: after it the turn may have to wait for capacity as well."""
MAX_WAITING_TURNS = 16_384
"""Of all tenants, for those without a limit of open turns; as many as the policy holds by default."""
RETRY_AFTER_S = 5.0
"""For a refusal whose end cannot be foreseen; the policy's own default."""
LOOK_AGAIN_S = 1.0
"""A session can come to rest by what happens to others, without a word of its own."""


class LimitedPolicy:
    """A policy, and the limits of tenants in front of it."""

    def __init__(self, policy: SchedulingPolicy) -> None:
        self.inner = policy
        self._uses: dict[str, TenantUse] = {}
        """Of tenants that have limits; bounded by the file that names them."""
        self._waiting: dict[str, TenantUse] = {}
        """Of those, the ones that have turns waiting."""
        self._turns: dict[str, LimitedTurn] = {}
        """All that are open, of whomever."""
        self._share = 1
        self._timer_s: float | None = None

    # -- what it shows --------------------------------------------------------------------------------

    @property
    def sessions(self) -> SessionTable:
        return self.inner.sessions

    @property
    def held(self) -> range:
        """As many as wait, here and there."""
        return range(len(self.inner.held) + self.waiting)

    @property
    def waiting(self) -> int:
        """Turns that wait for their own tenant."""
        return sum(use.waiting for use in self._waiting.values())

    @property
    def open_turns(self) -> int:
        return self.inner.open_turns + self.waiting

    @property
    def backends(self) -> dict[str, BackendState]:
        return self.inner.backends

    @property
    def tool_hosts(self) -> ToolHosts:
        return self.inner.tool_hosts

    def tool_joined_by(self, exec_id: str) -> JoinedBy | None:
        return self.inner.tool_joined_by(exec_id)

    def reserved_tokens(self, now: float) -> dict[str, float]:
        return self.inner.reserved_tokens(now)

    def budget_tokens(self, now: float) -> dict[str, float]:
        return self.inner.budget_tokens(now)

    @property
    def limits(self) -> tuple[TenantLimits, ...]:
        """As they were told last."""
        return tuple(use.limits for use in self._uses.values())

    def use_of(self, tenant: str) -> TenantUse | None:
        """None of a tenant without limits."""
        return self._uses.get(tenant)

    # -- events ---------------------------------------------------------------------------------------

    def handle(self, event: Event, now: float) -> list[Command]:
        commands: list[Command] = []
        match event:
            case TurnArrived():
                arrival = self._in_own_family(event, now)
                self._arrived(arrival, arrival, now, commands)
            case TurnResumed():
                arrival = self._in_own_family(event.arrival, now)
                self._resumed(replace(event, arrival=arrival), now, commands)
            case TurnEnded():
                self._ended(event, now, commands)
            case TurnBounced():
                if (turn := self._turns.get(event.turn_id)) is not None:
                    turn.is_forwarded = False  # what a backend failed is not the tenant's to pay
                self._pass_on(event, now, commands)
            case TurnProgressed():
                if (turn := self._turns.get(event.turn_id)) is not None:
                    turn.completion_tokens = event.completion_tokens
                self._pass_on(event, now, commands)
            case TimerFired():
                self._timer_s = None
                self._pass_on(event, now, commands)
                self._time_passed(now, commands)
            case TenantsChanged():
                self._pass_on(event, now, commands)
                self._change(event.tenants, now, commands)
            case StandingAlone() | StandingTogether():
                self._share = event.replicas if isinstance(event, StandingAlone) else 1
                self._pass_on(event, now, commands)
                self._change(self.limits, now, commands)
            case SessionEnded():
                self._session_ended(event, now, commands)
            case _:
                self._pass_on(event, now, commands)
        self._rearm(now, commands)
        return commands

    def _pass_on(self, event: Event, now: float, commands: list[Command]) -> None:
        for command in self.inner.handle(event, now):
            match command:
                case ForwardTurn():
                    if (turn := self._turns.get(command.turn_id)) is not None:
                        turn.is_forwarded = True
                case RejectTurn():
                    self._close(command.turn_id, None, now)
                case SetTimer():
                    self._timer_s = command.at_s
            commands.append(command)

    def _in_own_family(self, arrival: TurnArrived, now: float) -> TurnArrived:
        use = self._uses.get(arrival.tenant)
        if use is None:
            return arrival
        return replace(arrival, family=use.families.own_name(arrival.tenant, arrival.family, now))

    def _arrived(self, event: Waiting, arrival: TurnArrived, now: float, commands: list[Command]) -> None:
        turn_id, use = arrival.turn_id, self._uses.get(arrival.tenant)
        if use is None:
            self._open(arrival)
            self._pass_on(event, now, commands)
            return
        self._release(use, now, commands)
        if event is arrival and use.has_all_turns():
            commands.append(RejectTurn(turn_id, Reason.TENANT_TURNS, RETRY_AFTER_S))
            return
        reason = use.obstacle(arrival, self._is_resting, now)
        if reason is None:
            use.take(self._open(arrival))
            self._pass_on(event, now, commands)
        else:
            self._hold(event, arrival, use, reason, now, commands)

    def _hold(
        self,
        event: Waiting,
        arrival: TurnArrived,
        use: TenantUse,
        reason: Reason,
        now: float,
        commands: list[Command],
    ) -> None:
        wait_s = use.token_wait_s(len(use.for_tokens), now) if reason is Reason.TENANT_TOKENS else 0.0
        if wait_s > MAX_WAIT_S or self.waiting >= MAX_WAITING_TURNS:
            commands.append(RejectTurn(arrival.turn_id, reason, max(wait_s, RETRY_AFTER_S)))
            return
        self._open(arrival)
        line = use.for_tokens if reason is Reason.TENANT_TOKENS else use.for_session
        line[arrival.turn_id] = event, now
        self._waiting[arrival.tenant] = use
        commands.append(HoldTurn(arrival.turn_id, reason, len(line)))

    def _resumed(self, event: TurnResumed, now: float, commands: list[Command]) -> None:
        """In flight it is there whatever the limits say; held and not known here, it stands in line as if
        it came now."""
        arrival = event.arrival
        turn, use = self._turns.get(arrival.turn_id), self._uses.get(arrival.tenant)
        is_in_line = use is not None and use.is_in_line(arrival.turn_id)
        if event.backend is None:
            if turn is None:
                self._arrived(event, arrival, now, commands)
            elif not is_in_line:
                self._pass_on(event, now, commands)
            return
        if use is not None and (turn is None or is_in_line):
            use.leave_line(arrival.turn_id)
            use.take(turn or self._open(arrival))
        turn = self._turns.get(arrival.turn_id) or self._open(arrival)
        turn.is_forwarded = True
        self._pass_on(event, now, commands)
        if use is not None:
            self._release(use, now, commands)

    def _open(self, arrival: TurnArrived) -> LimitedTurn:
        turn = self._turns[arrival.turn_id] = LimitedTurn(arrival)
        if (use := self._uses.get(arrival.tenant)) is not None:
            use.open_turns += 1
        return turn

    # -- endings --------------------------------------------------------------------------------------

    def _ended(self, event: TurnEnded, now: float, commands: list[Command]) -> None:
        turn = self._turns.get(event.turn_id)
        use = None if turn is None else self._uses.get(turn.arrival.tenant)
        if use is None or not use.leave_line(event.turn_id):  # else the policy has never heard of it
            self._pass_on(event, now, commands)
        self._close(event.turn_id, event, now)
        if use is not None:
            self._release(use, now, commands)

    def _close(self, turn_id: str, event: TurnEnded | None, now: float) -> None:
        """``event`` is None for a turn that was refused."""
        turn = self._turns.pop(turn_id, None)
        use = None if turn is None else self._uses.get(turn.arrival.tenant)
        if turn is not None and use is not None:
            use.close(turn)
            # What a backend failed is not the tenant's to pay.
            if turn.is_forwarded and event is not None and event.ending is not Ending.FAILED:
                use.charge(turn, _computed_tokens(event), now)

    def _session_ended(self, event: SessionEnded, now: float, commands: list[Command]) -> None:
        session = self.sessions.get(event.session_id)
        self._pass_on(event, now, commands)
        if session is not None and (use := self._waiting.get(session.tenant)) is not None:
            use.may_have_rested = True
            self._release(use, now, commands)

    # -- time -----------------------------------------------------------------------------------------

    def _time_passed(self, now: float, commands: list[Command]) -> None:
        for use in list(self._waiting.values()):
            use.may_have_rested = True
            self._release(use, now, commands)
            self._give_up(use, use.for_session, Reason.TENANT_SESSIONS, now, commands)
            self._give_up(use, use.for_tokens, Reason.TENANT_TOKENS, now, commands)

    def _give_up(
        self, use: TenantUse, line: WaitingLine, reason: Reason, now: float, commands: list[Command]
    ) -> None:
        """Those who have waited for too long."""
        while line and _since_s(line) + MAX_WAIT_S <= now:
            turn_id = next(iter(line))
            del line[turn_id]
            wait_s = use.token_wait_s(len(use.for_tokens), now)
            commands.append(RejectTurn(turn_id, reason, max(wait_s, RETRY_AFTER_S)))
            self._close(turn_id, None, now)

    def _release(self, use: TenantUse, now: float, commands: list[Command]) -> None:
        """Let those go that need not wait any more. Whoever had tokens and lacked a place comes first."""
        for line in (use.for_session, use.for_tokens):
            while line:
                turn_id, (event, since_s) = next(iter(line.items()))
                turn = self._turns[turn_id]
                reason = use.obstacle(turn.arrival, self._is_resting, now)
                if reason is Reason.TENANT_TOKENS or (reason and line is use.for_session):
                    break
                del line[turn_id]
                if reason is None:
                    use.take(turn)
                    self._pass_on(event, now, commands)
                else:
                    use.for_session[turn_id] = event, since_s
                    commands.append(HoldTurn(turn_id, reason, len(use.for_session)))
        if not use.waiting:
            self._waiting.pop(use.limits.tenant, None)

    def _rearm(self, now: float, commands: list[Command]) -> None:
        """There is one timer, and the policy may have set it for something later."""
        due_s = min(self._dues(now), default=None)
        if due_s is not None and (self._timer_s is None or due_s < self._timer_s):
            self._timer_s = due_s
            commands.append(SetTimer(due_s))

    def _dues(self, now: float) -> Iterator[float]:
        for use in self._waiting.values():
            if use.for_tokens:
                yield min(_since_s(use.for_tokens) + MAX_WAIT_S, now + use.token_wait_s(0, now))
            if use.for_session:
                yield min(_since_s(use.for_session) + MAX_WAIT_S, now + LOOK_AGAIN_S)

    # -- limits ---------------------------------------------------------------------------------------

    def _change(self, limits: tuple[TenantLimits, ...], now: float, commands: list[Command]) -> None:
        """What is open stays; who waited for a limit that is gone goes."""
        before = self._uses
        self._uses = {each.tenant: before.get(each.tenant) or self._new_use(each) for each in limits}
        for each in limits:
            use = self._uses[each.tenant]
            if use.max_sessions is None and each.max_sessions is not None:
                use.at_work = self._at_work(each.tenant)
            use.limit(each, self._share, now)
        for tenant, use in list(self._waiting.items()):
            if tenant not in self._uses:
                del self._waiting[tenant]
                for event, _ in chain(use.for_session.values(), use.for_tokens.values()):
                    self._pass_on(event, now, commands)
            else:
                self._release(use, now, commands)

    def _new_use(self, limits: TenantLimits) -> TenantUse:
        tenant = limits.tenant
        open_turns = sum(turn.arrival.tenant == tenant for turn in self._turns.values())
        return TenantUse(limits, open_turns=open_turns, at_work=self._at_work(tenant))

    def _at_work(self, tenant: str) -> dict[str, None]:
        own = (session.id for session in self.sessions if session.tenant == tenant)
        return {session_id: None for session_id in own if not self._is_resting(session_id)}

    def _is_resting(self, session_id: str) -> bool:
        session = self.sessions.get(session_id)
        return session is None or (session.phase is Phase.IDLE and not session.open_turns)


def _since_s(line: WaitingLine) -> float:
    """When the oldest began to wait."""
    return next(iter(line.values()))[1]


def _computed_tokens(event: TurnEnded) -> int | None:
    if event.prompt_tokens is None:
        return None
    return event.prompt_tokens - (event.cached_tokens or 0) + (event.completion_tokens or 0)

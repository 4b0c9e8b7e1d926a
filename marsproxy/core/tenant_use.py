"""What one tenant has at the moment, against what it may have.

Owns the counts of one tenant that has limits: open turns, sessions at work, tokens. It answers what is in a
turn's way and must not know queues, policies or other tenants.
"""

from collections.abc import Callable
from dataclasses import dataclass, field

from marsproxy.core.commands import Reason
from marsproxy.core.events import TenantLimits, TurnArrived, TurnResumed
from marsproxy.core.evidence import TurnKind
from marsproxy.core.tenant_families import TenantFamilies
from marsproxy.core.token_bucket import TokenBucket

COST_GAIN = 0.1
"""Weight of the latest turn in the mean cost: some ten turns are what a tenant's next is judged by."""
LEAST_BALANCE_TOKENS = -1.0
"""Below this the tenant is in debt. A whole token of slack: sums over hours are off by less."""

Waiting = TurnArrived | TurnResumed
WaitingLine = dict[str, tuple[Waiting, float]]
"""Turns by id, and since when each waits; oldest first."""


@dataclass(slots=True)
class LimitedTurn:
    """An open turn, of whichever tenant."""

    arrival: TurnArrived
    expected_tokens: float = 0.0
    """Set aside for it from the time it may go until its cost is known."""
    completion_tokens: int = 0
    """As far as it was told."""
    is_forwarded: bool = False


@dataclass(slots=True)
class TenantUse:
    """One tenant's."""

    limits: TenantLimits
    share: int = 1
    """The limits are one of so many parts: of replicas that do not hear each other."""
    open_turns: int = 0
    at_work: dict[str, None] = field(default_factory=dict)
    """Sessions that have had a place and were not yet seen at rest."""
    may_have_rested: bool = False
    """Whether looking again could find one of them at rest."""
    bucket: TokenBucket | None = None
    set_aside: float = 0.0
    """Tokens that the turns under way are expected to cost."""
    mean_cost: float | None = None
    for_session: WaitingLine = field(default_factory=dict)
    """Turns that wait for one of the tenant's sessions to rest."""
    for_tokens: WaitingLine = field(default_factory=dict)
    """Turns that wait for a debt to be paid off."""
    families: TenantFamilies = field(default_factory=TenantFamilies)

    def limit(self, limits: TenantLimits, share: int, now: float) -> None:
        """These hold from now on."""
        self.limits, self.share = limits, share
        self.may_have_rested = True
        if limits.tokens_per_s is None:
            self.bucket = None
            return
        rate = limits.tokens_per_s / share
        burst = None if limits.burst_tokens is None else limits.burst_tokens / share
        if self.bucket is None:
            self.bucket = TokenBucket(rate, burst, now)
        else:
            self.bucket.change(rate, burst, now)

    @property
    def waiting(self) -> int:
        return len(self.for_session) + len(self.for_tokens)

    @property
    def max_open_turns(self) -> int | None:
        return _part(self.limits.max_open_turns, self.share)

    @property
    def max_sessions(self) -> int | None:
        return _part(self.limits.max_sessions, self.share)

    def has_all_turns(self) -> bool:
        """Whether one more would be too many."""
        most = self.max_open_turns
        return most is not None and self.open_turns >= most

    def obstacle(self, arrival: TurnArrived, is_resting: Callable[[str], bool], now: float) -> Reason | None:
        """What keeps the turn waiting.

        Args:
            is_resting: whether a session has neither an open turn nor a gap from which it will come back.
        """
        if self.is_in_debt(now):
            return Reason.TENANT_TOKENS
        return None if self._has_place(arrival, is_resting) else Reason.TENANT_SESSIONS

    def is_in_debt(self, now: float) -> bool:
        return self.bucket is not None and self.bucket.balance(now) - self.set_aside <= LEAST_BALANCE_TOKENS

    def token_wait_s(self, ahead: int, now: float) -> float:
        """Seconds until a turn may go that has so many before it, if each costs what they do in the mean."""
        if self.bucket is None:
            return 0.0
        return self.bucket.wait_s(self.set_aside + ahead * (self.mean_cost or 0.0), now)

    def _has_place(self, arrival: TurnArrived, is_resting: Callable[[str], bool]) -> bool:
        """Side calls take none, and a sub-agent is a part of the run that waits for it."""
        most = self.max_sessions
        if most is None or arrival.kind is TurnKind.SIDE or arrival.session_id in self.at_work:
            return True
        if arrival.parent_session_id in self.at_work:
            return True
        if len(self.at_work) >= most and self.may_have_rested:
            self.at_work = {each: None for each in self.at_work if not is_resting(each)}
            self.may_have_rested = False
        return len(self.at_work) < most

    def take(self, turn: LimitedTurn) -> None:
        """The turn may go: its place is taken, and what it should cost is set aside."""
        arrival = turn.arrival
        is_part = arrival.parent_session_id in self.at_work and arrival.session_id not in self.at_work
        if self.max_sessions is not None and arrival.kind is not TurnKind.SIDE and not is_part:
            self.at_work[arrival.session_id] = None
        if self.bucket is not None:
            cost = arrival.prompt_tokens_estimate if self.mean_cost is None else self.mean_cost
            turn.expected_tokens = cost
            self.set_aside += cost

    def is_in_line(self, turn_id: str) -> bool:
        return turn_id in self.for_session or turn_id in self.for_tokens

    def leave_line(self, turn_id: str) -> bool:
        """False for a turn that does not wait here."""
        return any(line.pop(turn_id, None) is not None for line in (self.for_session, self.for_tokens))

    def close(self, turn: LimitedTurn) -> None:
        """The turn is over, in any way."""
        self.open_turns -= 1
        self.may_have_rested = True
        self.set_aside = max(0.0, self.set_aside - turn.expected_tokens)

    def charge(self, turn: LimitedTurn, spent: int | None, now: float) -> None:
        """A turn that was in flight has cost so much; None where nobody said: then what was set aside
        for it, or what it is known to have generated."""
        if self.bucket is None:
            return
        if spent is None:
            self.bucket.spend(max(turn.expected_tokens, turn.completion_tokens), now)
            return
        mean = spent if self.mean_cost is None else self.mean_cost
        self.mean_cost = mean + COST_GAIN * (spent - mean)
        self.bucket.spend(spent, now)


def _part(most: int | None, share: int) -> int | None:
    """At least one: a tenant that may nothing at all has no key."""
    return None if most is None else max(1, most // share)

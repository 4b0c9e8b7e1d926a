"""A small replica on a real state, and a group of them on one Redis."""

import asyncio
import contextlib
from collections.abc import AsyncIterator, Callable
from dataclasses import dataclass, field

from marsproxy.core.commands import ForwardTurn
from marsproxy.core.events import BackendObserved, Ending, TurnEnded
from marsproxy.core.evidence import AnswerEvidence, Schema, TurnEvidence
from marsproxy.core.identity import IdentityLimits, SessionIndex
from marsproxy.core.policy import Policy
from marsproxy.core.settings import PolicySettings
from marsproxy.core.shared_state import Arrival, Departure, Happening, Resumption, SharedState
from marsproxy.journal import Journal
from marsproxy.store.log import Log
from marsproxy.store.redis_journal import Patience, RedisJournal
from marsproxy.store.status import StoreState

GPU = "gpu"
QUICK = Patience(patience_s=0.5, lease_s=1.0)
BOUND_S = 30.0
"""Against tests that hang."""


def new_state() -> SharedState:
    return SharedState(Policy(PolicySettings(), (GPU,)), SessionIndex(IdentityLimits(), salt=b"salt"))


def arrival(turn_id: str, *history: bytes) -> Arrival:
    evidence = TurnEvidence(Schema.CHAT, "", history or (turn_id.encode(),), b"", has_tools=True)
    return Arrival(turn_id, evidence, prompt_tokens_estimate=100)


def departure(turn_id: str) -> Departure:
    ended = TurnEnded(turn_id, Ending.FINISHED, 100, 0, 10, tool_calls=1)
    return Departure(ended, AnswerEvidence(turn_id.encode()))


def observed() -> BackendObserved:
    return BackendObserved(GPU, kv_tokens_total=1_000_000)


@dataclass
class Replica:
    """Keeps what it was given, and tells its open turns anew when it adopts."""

    state: SharedState = field(default_factory=new_state)
    records: list[tuple[Happening, str, float]] = field(default_factory=list)
    forwarded: list[str] = field(default_factory=list)
    """Of the turns that arrived here, in the order in which they may go."""
    adopted: int = 0
    open: dict[str, Arrival] = field(default_factory=dict)
    journal: Journal = field(init=False)

    def applied(self, happening: Happening, member: str, now: float) -> None:
        self.records.append((happening, member, now))
        for outcome in self.state.apply(happening, member, now):
            for command in outcome.commands:
                if isinstance(command, ForwardTurn) and command.turn_id in self.open:
                    self.forwarded.append(command.turn_id)

    def adopt(self, state: SharedState, now: float) -> None:
        self.state = state
        self.adopted += 1
        for each in self.open.values():
            backend = GPU if each.turn_id in self.forwarded else None
            self.journal.append(Resumption(each, backend))

    def arrive(self, turn_id: str) -> None:
        self.open[turn_id] = arrival(turn_id)
        self.journal.append(self.open[turn_id])

    def end(self, turn_id: str) -> None:
        del self.open[turn_id]
        self.journal.append(departure(turn_id))

    @property
    def told(self) -> list[Happening]:
        return [happening for happening, _, _ in self.records]


class Member(Replica):
    """One on Redis."""

    def __init__(
        self, url: str, *, group: str = "test", patience: Patience = QUICK, expected_replicas: int = 1
    ) -> None:
        super().__init__()
        self.redis_journal = RedisJournal(
            self,
            lambda status, process: Log(
                url, status, group=group, process=process, lease_s=patience.lease_s, ttl_s=600.0,
                timeout_s=patience.patience_s, seed=1,
            ),
            patience,
            expected_replicas=expected_replicas,
        )  # fmt: skip
        self.journal = self.redis_journal
        self.status = self.redis_journal.status

    @property
    def is_together(self) -> bool:
        return self.status.state is StoreState.TOGETHER

    @property
    def is_alone(self) -> bool:
        return self.status.state is StoreState.ALONE


@contextlib.asynccontextmanager
async def members(url: str, count: int, *, patience: Patience = QUICK) -> AsyncIterator[list[Member]]:
    """That know of each other."""
    async with contextlib.AsyncExitStack() as stack:
        found = [Member(url, patience=patience) for _ in range(count)]
        for member in found:
            await stack.enter_async_context(member.redis_journal.open())
        await until(lambda: all(len(each.state.members) == count for each in found))
        yield found


async def until(holds: Callable[[], bool]) -> None:
    async with asyncio.timeout(BOUND_S):
        while not holds():  # noqa: ASYNC110 - what is waited for is in several places
            await asyncio.sleep(0.005)

"""Histories of records by seed: sessions of several tenants that go on through several members.

Made without looking at what a state does with them, so the same history can be given to any state. The same
seed gives the same history in every process.
"""

from random import Random

from marsproxy.core.events import (
    BackendObserved,
    BackendUnreachable,
    Ending,
    LeaseExpired,
    SessionEnded,
    TimerFired,
    ToolHostsObserved,
    ToolObserved,
    ToolPhase,
    TurnEnded,
    TurnFirstToken,
    TurnProgressed,
)
from marsproxy.core.evidence import AnswerEvidence, Level, Schema, TurnEvidence
from marsproxy.core.identity import IdentityLimits, SessionIndex
from marsproxy.core.policies import policy_kind
from marsproxy.core.settings import AdmissionSettings, PolicySettings, SessionSettings
from marsproxy.core.shared_state import (
    Arrival,
    Departure,
    Happening,
    MemberJoined,
    MemberLeft,
    Outcome,
    Resumption,
    SharedState,
)

Record = tuple[float, str, Happening]

BACKENDS = ("one", "two")
MEMBERS = ("a", "b", "c")
SMALL = PolicySettings(
    AdmissionSettings(
        peak_prior_tokens=8_000,
        idle_gap_s=10.0,
        fallback_concurrency=3,
        telemetry_stale_s=20.0,
        max_held_turns=20,
        max_hold_s=60.0,
        static_cap_sessions=3,
    ),
    SessionSettings(max_sessions=30, idle_expiry_s=200.0),
)


def new_state(policy: str = "mars", settings: PolicySettings = SMALL) -> SharedState:
    limits = IdentityLimits(sessions=25, idle_s=200.0, lines_per_id=3)
    return SharedState(policy_kind(policy).make(settings, BACKENDS), SessionIndex(limits, salt=b"salt"))


def apply(state: SharedState, records: list[Record]) -> list[list[Outcome]]:
    return [state.apply(happening, member, now) for now, member, happening in records]


class History:
    """Makes records. Histories grow by answer and result; some are sent twice, under ids or without."""

    def __init__(self, seed: int) -> None:
        self._random = Random(seed)
        self.now = 0.0
        self.records: list[Record] = []
        self._texts: list[tuple[bytes, ...]] = [(b"system", b"task %d" % number) for number in range(6)]
        self._open: dict[str, tuple[str, int, Arrival]] = {}
        self._made = 0
        for member in MEMBERS:
            self.tell(member, MemberJoined(member))
        for name in BACKENDS:
            self.tell("a", BackendObserved(name, kv_tokens_total=40_000, takes_hints=True))

    def tell(self, member: str, happening: Happening) -> None:
        self.records.append((self.now, member, happening))

    def go_on(self, steps: int) -> list[Record]:
        for _ in range(steps):
            self.now += self._random.choice((0.0, 0.1, 1.0, 1.0, 7.0))
            self._random.choices(
                (
                    self._arrive,
                    self._depart,
                    self._run,
                    self._machines,
                    self._tool,
                    self._timer,
                    self._member,
                ),
                (10, 8, 3, 2, 3, 3, 1),
            )[0]()
        return self.records

    def _member_of(self) -> str:
        return self._random.choice(MEMBERS)

    def _arrive(self) -> None:
        chance = self._random
        number = chance.randrange(len(self._texts))
        self._made += 1
        explicit_id = f"id {number}" if number % 2 else None
        evidence = TurnEvidence(
            Schema.CHAT,
            f"tenant {number % 3}",
            self._texts[number] if chance.random() < 0.9 else (b"system", b"title"),
            b"",
            has_tools=chance.random() < 0.9,
            explicit_id=explicit_id,
            explicit_level=Level.BODY if explicit_id else None,
            family=f"family {number % 2}",
            echoed_call_ids=(f"call {number}",) if len(self._texts[number]) > 2 else (),
            retry_count=chance.choice((None, None, 1)),
        )
        member = self._member_of()
        arrival = Arrival(f"{member}.{self._made}", evidence, chance.choice((100, 3_000, 9_000)))
        self._open[arrival.turn_id] = (member, number, arrival)
        self.tell(member, arrival)

    def _depart(self) -> None:
        if not self._open:
            return
        chance = self._random
        turn_id = chance.choice([*self._open])
        member, number, _ = self._open.pop(turn_id)
        answer = b"answer %d" % self._made
        if len(self._texts[number]) < 20:
            self._texts[number] = (*self._texts[number], answer, b"result %d" % self._made)
        calls = chance.randrange(3)
        digests = tuple(f"digest {chance.randrange(3)}" for _ in range(calls))
        ending = chance.choice((Ending.FINISHED, Ending.FINISHED, Ending.FINISHED, Ending.ABORTED))
        ended = TurnEnded(
            turn_id, ending, chance.choice((500, 5_000, 12_000)), 100, 50, calls, "bash", digests, digests
        )
        self.tell(member, Departure(ended, AnswerEvidence(answer, call_ids=(f"call {number}",))))

    def _run(self) -> None:
        if self._open:
            turn_id = self._random.choice([*self._open])
            event = self._random.choice((TurnFirstToken(turn_id), TurnProgressed(turn_id, 40)))
            self.tell(self._open[turn_id][0], event)

    def _machines(self) -> None:
        name = self._random.choice(BACKENDS)
        self.tell(
            "a",
            self._random.choice(
                (
                    BackendObserved(name, 40_000, 0.6, 3, 1, 2, 900, 300, takes_hints=True),
                    BackendObserved(name, 40_000, 0.1, takes_hints=True),
                    BackendUnreachable(name),
                    ToolHostsObserved(cores=2.0, running=self._random.randrange(5), queued=0, host="host"),
                )
            ),
        )

    def _tool(self) -> None:
        exec_id, digest = f"exec {self._random.randrange(9)}", f"digest {self._random.randrange(3)}"
        phase = self._random.choice([*ToolPhase])
        self.tell(
            "b", ToolObserved(exec_id, phase, "gateway", command_digest=digest, run_s=1.0, principal=digest)
        )

    def _timer(self) -> None:
        self.tell(self._member_of(), self._random.choice((TimerFired(), LeaseExpired("nobody", "one", 5))))

    def _member(self) -> None:
        """One is given up and comes back, and brings its turns along; or somebody ends a session."""
        member = self._member_of()
        if self._random.random() < 0.5:
            self.tell(member, SessionEnded("nobody"))
            return
        self.tell(self._random.choice([each for each in MEMBERS if each != member]), MemberLeft(member))
        self.now += 1.0
        self.tell(member, MemberJoined(member))
        for owner, _, arrival in self._open.values():
            if owner == member:
                backend = self._random.choice((None, *BACKENDS))
                self.tell(member, Resumption(arrival, backend, self._random.choice((0.0, 5.0))))


def history(seed: int, steps: int) -> list[Record]:
    return History(seed).go_on(steps)

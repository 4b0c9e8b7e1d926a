"""What a journal drives, in tests: a real shared state, and a list of what was applied."""

from marsproxy.core.evidence import Schema, TurnEvidence
from marsproxy.core.identity import IdentityLimits, SessionIndex
from marsproxy.core.policies import policy_kind
from marsproxy.core.settings import PolicySettings
from marsproxy.core.shared_state import Arrival, Happening, SharedState

BACKEND = "http://gpu:8000"


def fresh_state(policy: str = "mars") -> SharedState:
    return SharedState(
        policy_kind(policy).make(PolicySettings(), (BACKEND,)),
        SessionIndex(IdentityLimits(sessions=1000, idle_s=600), salt=b"12345678"),
    )


def arrival(turn_id: str, text: str = "hello") -> Arrival:
    digest = text.encode().ljust(16, b".")
    evidence = TurnEvidence(Schema.CHAT, "", (digest,), digest, has_tools=True)
    return Arrival(turn_id, evidence, prompt_tokens_estimate=100)


class RecordingReplica:
    def __init__(self) -> None:
        self.state = fresh_state()
        self.records: list[tuple[Happening, str, float]] = []
        self.adoptions = 0

    def applied(self, happening: Happening, member: str, now: float) -> None:
        self.records.append((happening, member, now))
        self.state.apply(happening, member, now)

    def adopt(self, state: SharedState, now: float) -> None:
        self.adoptions += 1
        self.state = state

    @property
    def turns(self) -> list[str]:
        """Ids of those that arrived since this replica follows."""
        return [each.turn_id for each, _, _ in self.records if isinstance(each, Arrival)]

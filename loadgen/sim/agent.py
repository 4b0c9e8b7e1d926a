"""One session on its way through its turns: what it has said so far, and the record of it."""

from random import Random

from loadgen.records import SessionRecord, TurnRecord
from loadgen.sim.settings import TokenEstimate
from loadgen.workload import Session

BYTES_PER_TOKEN_OFF = (0.8, 0.2)
"""Median and log-normal sigma over sessions of estimated over real tokens, when estimated from bytes:
four bytes a token is what prose has; code and JSON have about 3.2 (own count of agent prompts)."""


class Agent:
    __slots__ = ("context_tokens", "gap_record", "next_turn", "record", "session", "tokens_off")

    def __init__(self, session: Session, now: float, tokens_off: float = 1.0) -> None:
        self.session = session
        self.record = SessionRecord(
            session.id, arrival_s=now, turns_planned=len(session.turns), tenant=session.tenant
        )
        self.next_turn = 0
        self.context_tokens = session.system_tokens
        self.tokens_off = tokens_off
        """Estimated over real tokens of its prompts."""
        self.gap_record: TurnRecord | None = None
        """Of the turn whose tool runs."""

    @property
    def is_done(self) -> bool:
        return self.next_turn == len(self.session.turns)

    def count(self, record: TurnRecord) -> None:
        prompt, output = record.prompt_tokens or 0, record.output_tokens or 0
        self.context_tokens = prompt + output
        self.record.turns_completed += 1
        self.record.prompt_tokens += prompt
        self.record.cached_tokens += record.cached_tokens or 0
        self.record.output_tokens += output


def tokens_off(estimate: TokenEstimate, rng: Random) -> float:
    """Estimated over real tokens of one session's prompts."""
    if estimate is TokenEstimate.EXACT:
        return 1.0
    median, sigma = BYTES_PER_TOKEN_OFF
    return median * rng.lognormvariate(0, sigma)

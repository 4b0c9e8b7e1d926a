"""What a program has been given so far, and what follows for its next call: Autellix's process table.

PLAS (arXiv 2502.13965, section 4.2) runs the program first that has attained the least service. Service
is the time of its completed calls on the model executor. Here it is counted in tokens that had to be
computed for the queues, whose bounds are in tokens (cached ones cost the executor nothing), and in seconds
for starvation, where the paper compares it with time waited.
"""

from bisect import bisect_right
from dataclasses import dataclass

LEVEL_BOUNDS_TOKENS = (2_048, 8_192, 32_768)
"""Upper bounds of the queues but the last. The paper gives no figures for its K queues; these are the ones
that the public preview of the MARS paper runs PLAS with."""
BETA = 2.0
"""Waiting over service from which a call is promoted to the first queue. The paper leaves it open, as a
trade of the mean against fairness; this too is the preview's."""


def level_of(service_tokens: float) -> int:
    """0 is the first queue, whose calls run earliest."""
    return bisect_right(LEVEL_BOUNDS_TOKENS, service_tokens)


@dataclass(frozen=True, slots=True)
class Service:
    """Attained by a program until some moment."""

    tokens: int = 0
    run_s: float = 0.0
    waited_s: float = 0.0


@dataclass(slots=True)
class Program:
    """One row of the table: a session and its sub-agents."""

    attained: Service = Service()

    def call_completed(self, before: Service, call: Service) -> None:
        """``before`` is what the program had attained when the call arrived.

        Each figure is raised to what it was then plus the call's own, as in the paper's algorithm 1: for
        calls one after another that is their sum, for parallel ones the critical path.
        """
        self.attained = Service(
            max(self.attained.tokens, before.tokens + call.tokens),
            max(self.attained.run_s, before.run_s + call.run_s),
            max(self.attained.waited_s, before.waited_s + call.waited_s),
        )


@dataclass(slots=True)
class Call:
    """A turn in flight."""

    program: Program
    before: Service
    """The program's, when the call arrived."""
    arrived_s: float
    prompt_tokens: int
    """That have to be computed, as far as is known before the answer says how many were cached."""
    queue_tokens: int
    """Service that the call's queue goes by: the program's and its own; since a promotion its own since."""
    level: int
    computed_tokens: int = 0
    first_token_s: float | None = None

    @classmethod
    def of(cls, program: Program, prompt_tokens: int, now: float) -> "Call":
        """Goes to the queue of its program's service; to the first if the program starves already."""
        before = program.attained
        call = cls(program, before, now, prompt_tokens, before.tokens, level_of(before.tokens))
        if call.level > 0 and call.starves_s <= now:
            call.promote()
        return call

    @property
    def starves_s(self) -> float:
        """When waiting over service will have reached BETA, if the call goes on waiting."""
        return self.arrived_s + BETA * self.before.run_s - self.before.waited_s

    def promote(self) -> None:
        """To the first queue, with its whole quantum before it."""
        self.queue_tokens = self.level = 0

    def try_demote(self, computed_tokens: int) -> bool:
        """So much of it has been computed by now: has it used up its queue?"""
        self.queue_tokens += max(0, computed_tokens - self.computed_tokens)
        self.computed_tokens = max(computed_tokens, self.computed_tokens)
        was, self.level = self.level, max(self.level, level_of(self.queue_tokens))
        return self.level > was

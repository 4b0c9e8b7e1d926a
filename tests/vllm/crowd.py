"""Sessions that do everything a client may do, at random: turns, departures, hints of all kinds, resets.

Owns the randomness, which is seeded, and the count of what was asked and answered.
"""

import asyncio
import random
from dataclasses import dataclass, field
from typing import Any

from backend_patch.protocol import KvOp, KvRequest, LeaseMode, TurnClass
from tests.vllm.engine_client import Context, EngineClient

LONGEST_CONTEXT = 24_000
LONG_ANSWER = 1_500
"""Several of them at once outgrow the pool while they run, so that some are preempted."""
ANSWER_TIMEOUT_S = 120.0
"""Of a hang."""


@dataclass
class Tally:
    sent: int = 0
    answered: int = 0
    left: int = 0
    """The client went away before the answer was complete."""
    short: int = 0
    """Answers with fewer tokens than were asked for."""


@dataclass
class Member:
    number: int
    engine: EngineClient
    chance: random.Random
    tally: Tally
    context: Context = field(init=False)

    def __post_init__(self) -> None:
        self.begin_anew()

    def begin_anew(self) -> None:
        self.context = Context(f"member-{self.number}", self.chance)
        self.context.more(self.chance.randrange(500, 6_000))

    async def act(self, until_s: float) -> None:
        """What it has begun by then it ends."""
        now_s = asyncio.get_running_loop().time
        while now_s() < until_s:
            await self.take_a_turn()
            if self.happens(0.4):
                await self.hint()
            if self.happens(0.02):
                await self.engine.reset_prefix_cache()
            if self.happens(0.1) or len(self.context.tokens) > LONGEST_CONTEXT:
                self.begin_anew()
            await asyncio.sleep(self.chance.uniform(0.0, 0.6))

    async def take_a_turn(self) -> None:
        output_tokens = LONG_ANSWER if self.happens(0.1) else self.chance.randrange(2, 100)
        turn = self.engine.turn(
            self.context,
            self.chance.randrange(10, 800),
            output_tokens,
            priority=self.chance.randrange(-2, 3) if self.happens(0.3) else 0,
            **self.metadata(),
        )
        patience_s = self.chance.uniform(0.01, 0.8) if self.happens(0.2) else None
        self.tally.sent += 1
        try:
            async with asyncio.timeout(patience_s or ANSWER_TIMEOUT_S):
                answer = await turn
        except TimeoutError:
            assert patience_s is not None, "no answer"
            self.tally.left += 1
        else:
            self.tally.answered += 1
            self.tally.short += len(answer.output) != output_tokens

    def metadata(self) -> dict[str, Any]:
        return {
            "mars_ttl_ms": self.chance.choice([0, 0, 300, 1_500, 20_000]),
            "mars_mode": self.chance.choice(list(LeaseMode)).value,
            "mars_final": int(self.happens(0.15)),
            "mars_branch": self.chance.choice(["", "", "sub"]),
        } | ({"mars_class": self.chance.choice(list(TurnClass)).value} if self.happens(0.2) else {})

    async def hint(self) -> None:
        """About itself, and sometimes about others too."""
        whose = [self.number] if self.happens(0.8) else range(self.number, self.number + 5)
        await self.engine.batch(
            [
                KvRequest(
                    op=self.chance.choice(list(KvOp)),
                    session=f"member-{number}",
                    branch=self.chance.choice([None, "", "sub"]),
                    ttl_ms=self.chance.choice([None, 200, 3_000]),
                    mode=self.chance.choice(list(LeaseMode)),
                )
                for number in whose
            ]
        )

    def happens(self, share: float) -> bool:
        return self.chance.random() < share


async def act_at_random(engine: EngineClient, members: int, seconds: float, seed: int) -> Tally:
    tally = Tally()
    until_s = asyncio.get_running_loop().time() + seconds
    async with asyncio.TaskGroup() as group:
        for number in range(members):
            member = Member(number, engine, random.Random(f"{seed}-{number}"), tally)
            group.create_task(member.act(until_s))
    return tally

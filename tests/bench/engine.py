"""What a simulated turn costs in the engine's model, on this machine: ``python tests/bench/engine.py``.

Random sessions of a coding agent's shape on one accelerator. ``calm`` arrives within its capacity and
``thrash`` far beyond it, where FCFS loses every prefix and preempts; ``leases`` does too, but keeps each
session's KV until its next turn, and nobody new may take it.
"""

import heapq
import random
import sys
import time
from dataclasses import dataclass, field
from itertools import count

from rich.console import Console
from rich.table import Table

from backend_patch.step_time import HardwareProfile, ModelProfile, StepTime
from loadgen.engine.chains import ChainStore
from loadgen.engine.requests import EngineRequest, Phase
from loadgen.engine.scheduler import Scheduler, SchedulerLimits
from loadgen.engine.virtual import VirtualEngine
from marsproxy.core.commands import YieldsTo

KV_TOKENS = 400_000
SESSIONS = 1_000
TURNS = 40
RATE_PER_S = {"calm": 0.035, "thrash": 0.1, "leases": 0.1}


@dataclass(slots=True)
class Agent:
    """A session that asks again a tool's time after each answer."""

    name: str
    new_tokens: list[int]
    output_tokens: list[int]
    gap_s: list[float]
    system_tokens: int = 1_300
    context_tokens: int = field(init=False)
    turn: int = 0

    def __post_init__(self) -> None:
        self.context_tokens = self.system_tokens

    def next_request(self) -> EngineRequest:
        prompt = self.context_tokens + self.new_tokens[self.turn]
        output = self.output_tokens[self.turn]
        self.context_tokens = prompt + output
        self.turn += 1
        return EngineRequest(
            self.name,
            prompt,
            output,
            chain=self.name,
            shared_chain="system",
            shared_tokens=self.system_tokens,
            may_break_leases=self.turn > 1,
        )

    @classmethod
    def draw(cls, number: int, rng: random.Random) -> "Agent":
        turns = TURNS
        news = [round(rng.lognormvariate(6.3, 0.8)) + 1 for _ in range(turns)]  # mean about 750 tokens
        outputs = [round(rng.lognormvariate(4.8, 0.8)) + 1 for _ in range(turns)]  # mean about 168
        return cls(f"s{number}", news, outputs, [rng.expovariate(1.0) for _ in range(turns)])


def simulate(rate_per_s: float, *, leases: bool = False, seed: int = 1) -> tuple[Scheduler, float]:
    """All sessions to their end; the scheduler, and when the last one ended."""
    rng = random.Random(seed)
    roofline = StepTime(HardwareProfile.load("h100"), ModelProfile.load("qwen3-30b-a3b"))
    store = ChainStore(KV_TOKENS // 16)
    scheduler = Scheduler(SchedulerLimits(kv_blocks=KV_TOKENS // 16), store=store)
    engine = VirtualEngine(scheduler, roofline.seconds, roofline.decode_seconds)
    agents = {f"s{number}": Agent.draw(number, rng) for number in range(SESSIONS)}
    order = count()
    pending: list[tuple[float, int, Agent]] = []
    at_s = 0.0
    for agent in agents.values():
        at_s += rng.expovariate(rate_per_s)
        heapq.heappush(pending, (at_s, next(order), agent))
    now = 0.0
    while pending or engine.step_ends_s is not None:
        if engine.step_ends_s is not None and (not pending or engine.step_ends_s <= pending[0][0]):
            now = engine.step_ends_s
            for request in engine.finish_step():
                agent = agents[request.request_id]
                if request.phase is not Phase.FINISHED:
                    continue
                if leases and agent.turn == TURNS:
                    engine.demote(agent.name, now)
                elif leases:
                    engine.keep(agent.name, None, YieldsTo.RETURNING, now)
                if agent.turn < TURNS:
                    heapq.heappush(pending, (now + agent.gap_s[agent.turn - 1], next(order), agent))
        else:
            now = pending[0][0]
            engine.add(heapq.heappop(pending)[2].next_request(), now)
        engine.start(now)
    return scheduler, now


def main() -> None:
    table = Table("case", "turns/s", "CPU s", "turns", "steps", "hit ratio", "preemptions", "makespan s")
    for case in sys.argv[1:] or list(RATE_PER_S):
        begin = time.process_time()
        scheduler, end_s = simulate(RATE_PER_S[case], leases=case == "leases")
        took_s = time.process_time() - begin
        totals = scheduler.totals
        ratio = totals.prefix_cache_hits / totals.prefix_cache_queries
        row = (
            f"{totals.finished / took_s:,.0f}",
            f"{took_s:.2f}",
            f"{totals.finished:,}",
            f"{totals.steps:,}",
        )
        table.add_row(case, *row, f"{ratio:.3f}", f"{totals.preemptions:,}", f"{end_s:,.0f}")
    Console().print(table)


if __name__ == "__main__":
    main()

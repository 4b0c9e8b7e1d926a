"""The engine's model with the patch against vLLM's scheduler with the patch, step by step.

Both get the same sessions with leases of every kind, some of which expire, are broken or are resumed. In
every step both must schedule the same requests with the same number of tokens and have the same blocks left.
"""

import random
from typing import Any

import pytest

from backend_patch.protocol import LeaseMode
from loadgen.engine.chains import ChainStore
from loadgen.engine.patch import PatchRules
from loadgen.engine.requests import EngineRequest
from loadgen.engine.scheduler import Scheduler, SchedulerLimits
from marsproxy.core.commands import KvLease, YieldsTo

pytestmark = [pytest.mark.vllm, pytest.mark.filterwarnings("default")]

BLOCK = 16
STEPS = 600
SESSIONS = 8
STEP_S = 1.0
YIELDS = {
    LeaseMode.SOFT: YieldsTo.RETURNING,
    LeaseMode.HARD: YieldsTo.NOBODY,
    LeaseMode.OPEN: YieldsTo.ANYBODY,
}


class Ask:
    """One request, as both are told of it."""

    def __init__(self, number: int, session: str, prompt: int, output: int, now: float) -> None:
        self.name = f"r{number}"
        self.session, self.prompt, self.output = session, prompt, output
        # No two at the same instant: vLLM breaks ties by what came first to hand.
        self.arrival_s = now + number * 1e-4
        self.is_first = self.priority = 0
        self.ttl_s, self.mode = 0, LeaseMode.SOFT


class Real:
    def __init__(self, limits: SchedulerLimits) -> None:
        from vllm.utils.hashing import sha256
        from vllm.v1.core.kv_cache_utils import get_request_block_hasher, init_none_hash

        from backend_patch.emulator.vllm_in_process import build_scheduler
        from backend_patch.virtual_engine import EngineShape

        init_none_hash(sha256)
        shape = EngineShape(
            limits.kv_blocks, BLOCK, limits.max_batched_tokens, limits.max_running, limits.policy,
            is_async=False, is_patched=True,
        )  # fmt: skip
        self.now = 0.0
        self.scheduler = build_scheduler(shape)
        self.scheduler.clock = lambda: self.now
        self._hasher = get_request_block_hasher(BLOCK, sha256)
        self._requests: dict[str, tuple[Any, int]] = {}

    @property
    def free_blocks(self) -> int:
        return int(self.scheduler.kv_cache_manager.block_pool.get_num_free_blocks())

    def add(self, ask: Ask) -> None:
        from vllm.sampling_params import SamplingParams
        from vllm.v1.request import Request

        text = int(ask.session)
        xargs: dict[str, Any] = {
            "mars_session": ask.session,
            "mars_class": "new" if ask.is_first else "continuation",
            "mars_ttl_ms": ask.ttl_s * 1000,
            "mars_mode": ask.mode.value,
        }
        request = Request(
            request_id=ask.name,
            prompt_token_ids=[token(text, index) for index in range(ask.prompt)],
            sampling_params=SamplingParams(max_tokens=ask.output, ignore_eos=True, extra_args=xargs),
            pooling_params=None,
            arrival_time=ask.arrival_s,
            priority=ask.priority,
            block_hasher=self._hasher,
        )
        self._requests[ask.name] = request, text
        self.scheduler.add_request(request)

    def schedule(self, now: float) -> dict[str, int]:
        self.now = now
        self._output = self.scheduler.schedule()
        return dict(self._output.num_scheduled_tokens)

    def complete(self) -> list[str]:
        """Who has ended."""
        from vllm.v1.outputs import ModelRunnerOutput

        names = list(self._output.num_scheduled_tokens)
        if names:
            sampled = [self._sampled(*self._requests[name]) for name in names]
            index = {name: position for position, name in enumerate(names)}
            self.scheduler.update_from_output(
                self._output,
                ModelRunnerOutput(req_ids=names, req_id_to_index=index, sampled_token_ids=sampled),
            )
        return [name for name in names if self._requests[name][0].is_finished()]

    def _sampled(self, request: Any, text: int) -> list[int]:
        caught_up = request.num_computed_tokens >= request.num_tokens
        return [token(text, request.num_tokens)] if caught_up else []


class Model:
    def __init__(self, limits: SchedulerLimits) -> None:
        rules = PatchRules()
        self.store = ChainStore(
            limits.kv_blocks, BLOCK, max_leased_share=rules.max_leased_share, max_ttl_s=rules.max_ttl_s
        )
        self.scheduler = Scheduler(limits, store=self.store)

    def add(self, ask: Ask) -> None:
        self.scheduler.add(
            EngineRequest(
                ask.name,
                ask.prompt,
                ask.output,
                chain=ask.session,
                priority=ask.priority,
                arrival_s=ask.arrival_s,
                may_break_leases=not ask.is_first,
                lease=KvLease(ask.ttl_s, YIELDS[ask.mode]) if ask.ttl_s else None,
            )
        )

    def schedule(self, now: float) -> dict[str, int]:
        self._batch, self._now = self.scheduler.schedule(now), now
        return {request.request_id: new for request, new in self._batch.scheduled.items()}

    def complete(self) -> None:
        self.scheduler.complete(self._batch, self._now)


class Sessions:
    """Each comes back some steps after its turn has ended, with a longer prompt, or as another session."""

    def __init__(self, seed: int) -> None:
        self.rng = random.Random(seed)
        batched = self.rng.choice([64, 256])
        self.limits = SchedulerLimits(
            kv_blocks=self.rng.randint(60, 200),
            block_tokens=BLOCK,
            max_batched_tokens=batched,
            max_running=self.rng.choice([4, 16, 32]),
            policy="fcfs" if seed % 2 else "priority",
            patch=PatchRules(),
        )
        self._context_limit = self.limits.kv_blocks * BLOCK * 2 // 3
        self._contexts: dict[str, int] = {}
        self._due = [(self.rng.randint(0, 60), str(number)) for number in range(SESSIONS)]
        self._sessions = SESSIONS
        self._asks: dict[str, Ask] = {}

    def due(self, step: int) -> list[Ask]:
        coming = [session for at, session in self._due if at <= step]
        self._due = [each for each in self._due if each[0] > step]
        return [self._ask(session, step * STEP_S) for session in coming]

    def ended(self, names: list[str], step: int) -> None:
        self._due += [(step + 1 + self.rng.randint(0, 40), self._asks[name].session) for name in names]

    def _ask(self, session: str, now: float) -> Ask:
        rng = self.rng
        output, new = rng.randint(1, 30), rng.randint(5, 150)
        if self._contexts.get(session, 0) + new + output > self._context_limit:
            session, self._sessions = str(self._sessions), self._sessions + 1
        ask = Ask(len(self._asks) + 1, session, self._contexts.get(session, 0) + new, output, now)
        ask.is_first = session not in self._contexts
        ask.priority = rng.randint(0, 1)
        ask.mode = rng.choice([LeaseMode.SOFT, *LeaseMode])
        ask.ttl_s = rng.choice([0, 5, 40, 40])
        self._contexts[session] = ask.prompt + output
        self._asks[ask.name] = ask
        return ask


def token(text: int, index: int) -> int:
    return (text * 7919 + index * 31) % 900 + 1


@pytest.mark.parametrize("seed", range(8))
def test_every_step_is_that_of_the_patch(seed: int) -> None:
    sessions = Sessions(seed)
    real, model = Real(sessions.limits), Model(sessions.limits)
    for step in range(STEPS):
        for ask in sessions.due(step):
            real.add(ask)
            model.add(ask)
        now = (step + 0.5) * STEP_S
        assert model.schedule(now) == real.schedule(now), f"step {step}"
        assert model.store.free_blocks == real.free_blocks, f"step {step}"
        model.complete()
        sessions.ended(real.complete(), step)
    totals = real.scheduler.mars.leases.endings.totals
    assert real.scheduler.mars.passthrough is None
    assert min(totals.values()) > 0, totals
    assert model.scheduler.totals.finished > 30

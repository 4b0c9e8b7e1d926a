"""One simulated vLLM: the engine's model on a virtual clock, and what its metrics would say."""

from collections.abc import Iterator
from math import inf
from typing import assert_never

from backend_patch.step_time import StepTime
from loadgen.engine.chains import ChainStore
from loadgen.engine.leases import How
from loadgen.engine.patch import PatchRules
from loadgen.engine.requests import EngineRequest
from loadgen.engine.scheduler import Scheduler, SchedulerLimits
from loadgen.engine.virtual import VirtualEngine
from loadgen.sim.backend import PROGRESS_TOKENS, SimTurn
from loadgen.sim.settings import BLOCK_TOKENS, SimulationSettings
from marsproxy.core.commands import ForwardTurn, HintKv, KvAction
from marsproxy.core.events import (
    BackendObserved,
    Event,
    HintAnswered,
    KvReclaimed,
    LeaseExpired,
    LeaseResumed,
    TurnProgressed,
)


class Server:
    def __init__(self, name: str, settings: SimulationSettings, step_time: StepTime, kv_tokens: int) -> None:
        self.name = name
        self._takes_hints = settings.takes_hints
        self._swap_tokens_per_s: float | None = None
        if settings.takes_hints and settings.host_kv_tokens >= BLOCK_TOKENS:
            self._swap_tokens_per_s = 1 / step_time.host_copy_seconds(1)
        patch = PatchRules() if settings.is_patched else None
        limits = SchedulerLimits(
            kv_blocks=kv_tokens // BLOCK_TOKENS,
            block_tokens=BLOCK_TOKENS,
            max_batched_tokens=settings.max_batched_tokens,
            max_running=settings.max_running,
            policy=settings.kind.engine_order,
            patch=patch,
        )
        self.kv_tokens = limits.kv_blocks * BLOCK_TOKENS
        store = ChainStore(
            limits.kv_blocks,
            BLOCK_TOKENS,
            host_blocks=settings.host_kv_tokens // BLOCK_TOKENS,
            max_leased_share=patch.max_leased_share if patch else 1.0,
            max_ttl_s=patch.max_ttl_s if patch else inf,
        )
        self.engine = VirtualEngine(
            Scheduler(limits, store=store),
            step_time.seconds,
            step_time.decode_seconds,
            step_time.host_copy_seconds,
        )
        self.store = store
        self._turns: dict[EngineRequest, SimTurn] = {}

    @property
    def step_ends_s(self) -> float | None:
        return self.engine.step_ends_s

    @property
    def has_work(self) -> bool:
        return self.engine.scheduler.has_work

    @property
    def preemptions(self) -> int:
        return self.engine.scheduler.totals.preemptions

    @property
    def steps(self) -> int:
        return self.engine.scheduler.totals.steps

    about = "model"

    def forward(self, turn: SimTurn, command: ForwardTurn, now: float) -> None:
        request = EngineRequest(
            request_id=turn.id,
            prompt_tokens=turn.prompt_tokens,
            output_tokens=turn.turn.output_tokens,
            chain=turn.session_id,
            # A system prompt that nobody else has is part of the session's own text.
            shared_chain=turn.system_id if turn.system_tokens else None,
            shared_tokens=turn.system_tokens if turn.system_id is not None else 0,
            priority=command.priority,
            may_break_leases=command.may_break_leases,
            lease=command.lease if self._takes_hints else None,
        )
        turn.request, turn.server = request, self
        self._turns[request] = turn
        self.engine.add(request, now)

    def start(self, now: float) -> None:
        self.engine.start(now)

    def finish_step(self) -> tuple[list[SimTurn], list[SimTurn]]:
        """Turns that got their first token in the step that ends now, and those that got their last."""
        first, last = [], []
        for request in self.engine.finish_step():
            turn = self._turns[request]
            if not turn.has_first_token:
                turn.has_first_token = True
                first.append(turn)
            if request.is_over:
                del self._turns[request]
                turn.cached_tokens = request.cached_tokens
                last.append(turn)
        return first, last

    def take_events(self) -> list[Event]:
        return list(self._lease_endings())

    def progress(self, now: float) -> Iterator[TurnProgressed]:
        """Of the turns whose answers have grown by ``PROGRESS_TOKENS`` since the policy was last told."""
        self.engine.advance(now)
        for request in self.engine.scheduler.running:
            turn = self._turns[request]
            if request.generated_tokens - turn.told_tokens >= PROGRESS_TOKENS:
                turn.told_tokens = request.generated_tokens
                yield TurnProgressed(turn.id, request.generated_tokens)

    def try_hint(self, hint: HintKv, now: float) -> HintAnswered | None:
        """The answer, where there is one to give; a stock engine hears nothing."""
        if not self._takes_hints:
            return None
        engine, chain = self.engine, hint.session_id
        match hint.action:
            case KvAction.KEEP:
                kept = engine.keep(chain, hint.ttl_s, hint.yields_to, now)
                # Of a session whose turn runs nothing is leased before that ends, and nobody knows how much.
                return HintAnswered(chain, self.name, None if self._is_running(chain) else kept)
            case KvAction.SWAP_OUT:
                return HintAnswered(chain, self.name, engine.swap_out(chain, now))
            case KvAction.RELEASE:
                engine.release(chain, now)
            case KvAction.DEMOTE:
                engine.demote(chain, now)
            case _:
                assert_never(hint.action)
        return None

    def try_reprioritise(self, turn: SimTurn, priority: int, now: float) -> None:
        """Stock vLLM has no such call."""
        if self._takes_hints and turn.request is not None:
            self.engine.reprioritise(turn.request, priority, now)

    def reading(self, now: float) -> BackendObserved:
        self.engine.advance(now)
        scheduler = self.engine.scheduler
        totals = scheduler.totals
        return BackendObserved(
            backend=self.name,
            kv_tokens_total=self.kv_tokens,
            kv_used_ratio=scheduler.kv_used_ratio,
            running=len(scheduler.running),
            waiting=len(scheduler.waiting),
            preemptions_total=totals.preemptions,
            prefix_queries_total=totals.prefix_cache_queries,
            prefix_hits_total=totals.prefix_cache_hits,
            takes_hints=self._takes_hints,
            kv_leased_tokens=self.store.leased_tokens if self._takes_hints else None,
            kv_swap_tokens_per_s=self._swap_tokens_per_s,
        )

    def _is_running(self, chain: str) -> bool:
        return any(self._turns[request].session_id == chain for request in self.engine.scheduler.running)

    def _lease_endings(self) -> Iterator[LeaseResumed | LeaseExpired | KvReclaimed]:
        for ending in self.store.take_endings():
            tokens = ending.blocks * BLOCK_TOKENS
            match ending.how:
                case How.RESUMED:
                    hit_tokens = ending.hit_blocks * BLOCK_TOKENS
                    yield LeaseResumed(ending.chain, self.name, tokens, hit_tokens)
                case How.EXPIRED:
                    yield LeaseExpired(ending.chain, self.name, tokens)
                case How.RECLAIMED:
                    yield KvReclaimed(ending.chain, self.name, tokens)

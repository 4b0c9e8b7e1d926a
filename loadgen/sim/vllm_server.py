"""One simulated vLLM whose scheduler and KV cache manager are vLLM's own, with or without the backend patch.

Owns the translation between the policy's words and those of the patch's protocol, as the proxy has it for a
live engine. The patch has no operation to change the priority of a turn, nor is there a host tier here.
"""

from collections.abc import Iterator

from backend_patch.step_time import StepTime
from backend_patch.virtual_engine import (
    Ending,
    EngineShape,
    EngineTurn,
    KvAnswer,
    KvOp,
    KvRequest,
    LeaseEnding,
    LeaseMode,
    TurnClass,
    VirtualEngine,
    VirtualEngineUnavailableError,
    XArg,
    open_virtual_engine,
)
from loadgen.errors import LoadgenError
from loadgen.sim.backend import PROGRESS_TOKENS, SimTurn
from loadgen.sim.settings import BLOCK_TOKENS, SimulationSettings
from marsproxy.core.commands import ForwardTurn, HintKv, KvAction, YieldsTo
from marsproxy.core.events import (
    BackendObserved,
    Event,
    HintAnswered,
    KvReclaimed,
    LeaseExpired,
    LeaseResumed,
    TurnProgressed,
)

OPERATIONS = {
    KvAction.KEEP: KvOp.PIN,
    KvAction.RELEASE: KvOp.RELEASE,
    KvAction.DEMOTE: KvOp.RECYCLE,
    KvAction.SWAP_OUT: KvOp.DEMOTE,
}
MODES = {
    YieldsTo.ANYBODY: LeaseMode.OPEN,
    YieldsTo.RETURNING: LeaseMode.SOFT,
    YieldsTo.NOBODY: LeaseMode.HARD,
}
ANSWERED = (KvOp.PIN, KvOp.DEMOTE)
"""Operations whose outcome the policy is told."""


def open_vllm_server(
    name: str, settings: SimulationSettings, step_time: StepTime, kv_tokens: int
) -> "VllmServer":
    shape = shape_of(settings, kv_tokens)
    try:
        return VllmServer(name, shape, open_virtual_engine(shape, step_time.seconds))
    except VirtualEngineUnavailableError as exc:
        raise LoadgenError(f"--engine vllm: {exc}") from exc


def shape_of(settings: SimulationSettings, kv_tokens: int) -> EngineShape:
    kind = settings.kind
    return EngineShape(
        kv_blocks=kv_tokens // BLOCK_TOKENS,
        block_tokens=BLOCK_TOKENS,
        max_batched_tokens=settings.max_batched_tokens,
        max_running=settings.max_running,
        policy=kind.engine_order,
        is_async=settings.async_scheduling,
        is_patched=settings.takes_hints and (kind.has_patch or kind.needs_hints),
        # A policy of somebody else's gets leases, as it asks for them, but no order of ours.
        patch_options={} if kind.has_patch else {"order": False, "interleave": False},
    )


class VllmServer:
    def __init__(self, name: str, shape: EngineShape, engine: VirtualEngine) -> None:
        self.name = name
        self.kv_tokens = shape.kv_blocks * shape.block_tokens
        self._shape = shape
        self._engine = engine
        self._turns: dict[str, SimTurn] = {}

    @property
    def step_ends_s(self) -> float | None:
        return self._engine.step_ends_s

    @property
    def has_work(self) -> bool:
        return self._engine.has_work

    @property
    def preemptions(self) -> int:
        return self._engine.meters().preemptions

    @property
    def steps(self) -> int:
        return self._engine.meters().steps

    @property
    def about(self) -> str:
        return self._engine.about

    def forward(self, turn: SimTurn, command: ForwardTurn, now: float) -> None:
        turn.server = self
        self._turns[turn.id] = turn
        has_shared = turn.system_id is not None and turn.system_tokens > 0
        self._engine.add(
            EngineTurn(
                turn.id,
                text=turn.session_id,
                prompt_tokens=turn.prompt_tokens,
                output_tokens=turn.turn.output_tokens,
                shared_text=turn.system_id if has_shared else None,
                shared_tokens=turn.system_tokens if has_shared else 0,
                priority=command.priority,
                xargs=xargs_of(turn, command) if self._shape.is_patched else {},
            ),
            now,
        )

    def start(self, now: float) -> None:
        self._engine.start(now)

    def finish_step(self) -> tuple[list[SimTurn], list[SimTurn]]:
        first, last = [], []
        for update in self._engine.finish_step():
            turn = self._turns[update.id]
            if not turn.has_first_token:
                turn.has_first_token = True
                first.append(turn)
            if update.is_over:
                del self._turns[update.id]
                turn.cached_tokens = update.cached_tokens
                last.append(turn)
        return first, last

    def take_events(self) -> list[Event]:
        events: list[Event] = [self._ended(ending) for ending in self._engine.take_endings()]
        events += [self._answered(each) for each in self._engine.take_answers() if each.op in ANSWERED]
        return events

    def progress(self, now: float) -> Iterator[TurnProgressed]:
        for name, generated_tokens in self._engine.generated():
            turn = self._turns[name]
            if generated_tokens - turn.told_tokens >= PROGRESS_TOKENS:
                turn.told_tokens = generated_tokens
                yield TurnProgressed(name, generated_tokens)

    def try_hint(self, hint: HintKv, now: float) -> HintAnswered | None:
        """An engine at work answers between two steps, and the answer is among ``take_events`` then."""
        if not self._shape.is_patched:
            return None
        request = KvRequest(
            OPERATIONS[hint.action],
            hint.session_id,
            ttl_ms=None if hint.ttl_s is None else round(hint.ttl_s * 1000),
            mode=MODES[hint.yields_to],
        )
        is_idle = not self.has_work and self.step_ends_s is None
        self._engine.kv([request], now)
        if not is_idle:
            return None
        self._engine.start(now)
        answers = [self._answered(each) for each in self._engine.take_answers() if each.op in ANSWERED]
        return answers[0] if answers else None

    def try_reprioritise(self, turn: SimTurn, priority: int, now: float) -> None:
        """Neither vLLM nor the patch has such a call."""

    def reading(self, now: float) -> BackendObserved:
        meters = self._engine.meters()
        leased = meters.leased_blocks
        return BackendObserved(
            backend=self.name,
            kv_tokens_total=self.kv_tokens,
            kv_used_ratio=meters.used_blocks / meters.blocks,
            running=meters.running,
            waiting=meters.waiting,
            preemptions_total=meters.preemptions,
            prefix_queries_total=meters.prefix_queries,
            prefix_hits_total=meters.prefix_hits,
            takes_hints=self._shape.is_patched and meters.passthrough is None,
            kv_leased_tokens=None if leased is None else leased * self._shape.block_tokens,
        )

    def _ended(self, ending: LeaseEnding) -> Event:
        match ending.how:
            case Ending.RESUMED:
                return LeaseResumed(ending.session, self.name, ending.tokens, ending.hit_tokens or 0)
            case Ending.RECLAIMED:
                return KvReclaimed(ending.session, self.name, ending.tokens)
            case Ending.EXPIRED:
                return LeaseExpired(ending.session, self.name, ending.tokens)

    def _answered(self, answer: KvAnswer) -> HintAnswered:
        """Of a session whose turn runs nothing is leased before that ends, and nobody knows how much."""
        return HintAnswered(answer.session, self.name, None if answer.reason == "running" else answer.tokens)


def xargs_of(turn: SimTurn, command: ForwardTurn) -> dict[str, str | int]:
    may_break = command.may_break_leases
    xargs: dict[str, str | int] = {
        XArg.SESSION.value: turn.session_id,
        XArg.TURN_CLASS.value: (TurnClass.CONTINUATION if may_break else TurnClass.NEW).value,
    }
    if command.lease is not None:
        xargs[XArg.TTL_MS.value] = round(command.lease.ttl_s * 1000)
        xargs[XArg.MODE.value] = MODES[command.lease.yields_to].value
    return xargs

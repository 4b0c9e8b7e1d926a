"""EngineCore's loop around vLLM's own scheduler, in virtual time.

Theory of operation. ``EngineCore.step_with_batch_queue`` (vLLM 0.32, ``v1/engine/core.py``) keeps two
batches in flight: it schedules a step while the one before is still on the accelerator, and only waits once
the queue is full or nothing new could be scheduled. So a request that arrives while step n runs is first
looked at when n ends, at which time n + 1 is already scheduled: it runs in step n + 2. Here the same loop
runs until it would wait; the time when what it waits for is there is ``step_ends_s``. The accelerator does
one batch after the other, each for as long as the step-time model says; the scheduler takes no time. With a
depth of one this is ``EngineCore.step``, scheduling without overlap.

What arrives meanwhile lies in the input queue until the loop comes round, requests and operations alike.
"""

from collections import deque
from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass
from typing import Any

import vllm
from vllm.sampling_params import SamplingParams
from vllm.utils.hashing import sha256
from vllm.v1.core.kv_cache_utils import hash_block_tokens, init_none_hash
from vllm.v1.outputs import ModelRunnerOutput
from vllm.v1.request import Request

from backend_patch.emulator.token_streams import TokenStream, TokenStreams
from backend_patch.emulator.vllm_in_process import build_scheduler
from backend_patch.protocol import KvAnswer, KvRequest, LeaseEnding, RankHeadroom
from backend_patch.virtual_engine import EngineMeters, EngineShape, EngineTurn, StepSeconds, TurnUpdate

ASYNC_DEPTH = 2
"""``VllmConfig.max_concurrent_batches`` with asynchronous scheduling and no pipeline parallelism."""
YIELD_S = 0.001
"""What the loop sleeps when it has requests and could schedule none (``EngineCore._process_engine_step``)."""


@dataclass(frozen=True, slots=True)
class _Batch:
    output: Any
    """vLLM's ``SchedulerOutput``."""
    names: list[str]
    has_sampled: list[bool]
    """Whether each generates a token in this step; a prompt's earlier chunks do not."""
    ends_s: float


@dataclass(slots=True)
class _Turn:
    request: Request
    stream: TokenStream
    cached_tokens: int = 0


class VllmOnVirtualClock:
    """See ``VirtualEngine``."""

    def __init__(self, shape: EngineShape, step_seconds: StepSeconds) -> None:
        init_none_hash(sha256)
        self._now_s = 0.0
        self._shape = shape
        self._step_seconds = step_seconds
        self._depth = ASYNC_DEPTH if shape.is_async else 1
        self._scheduler = build_scheduler(shape)
        self._ready_s: float | None = None
        """When the loop goes on; None while it has nothing to do."""
        self._is_waiting = False
        """For the oldest batch in flight; else, if it is to go on later, it sleeps."""
        self._has_scheduled = False
        """Whether it did anything in its last round."""
        self._inputs: deque[Callable[[], None]] = deque()
        self._in_flight: deque[_Batch] = deque()
        self._accelerator_free_s = 0.0
        self._turns: dict[str, _Turn] = {}
        self._streams = TokenStreams(shape.block_tokens, _hash_block)
        self._answers: list[KvAnswer] = []
        self._last_seq = 0
        self._steps = self._preemptions = 0
        if shape.is_patched:
            self._scheduler.clock = self._clock

    def __repr__(self) -> str:
        return f"<VllmOnVirtualClock {len(self._turns)} turns, {len(self._in_flight)} steps in flight>"

    @property
    def about(self) -> str:
        return f"vllm {vllm.__version__}" + (", patched" if self._shape.is_patched else "")

    @property
    def step_ends_s(self) -> float | None:
        return self._ready_s

    @property
    def has_work(self) -> bool:
        return bool(self._turns or self._inputs)

    def add(self, turn: EngineTurn, now: float) -> None:
        stream = self._streams.get(turn.text, turn.shared_text, turn.shared_tokens)
        request = Request(
            request_id=turn.id,
            prompt_token_ids=stream.ids(turn.prompt_tokens),
            sampling_params=SamplingParams(
                max_tokens=turn.output_tokens, ignore_eos=True, extra_args=dict(turn.xargs) or None
            ),
            pooling_params=None,
            arrival_time=now,
            priority=turn.priority,
            block_hasher=_hasher(stream, self._shape.block_tokens),
        )
        self._turns[turn.id] = _Turn(request, stream)
        self._inputs.append(lambda: self._scheduler.add_request(request))

    def kv(self, requests: Sequence[KvRequest], now: float) -> None:
        self._inputs.append(lambda: self._answers.extend(self._scheduler.mars.apply(list(requests))))

    def start(self, now: float) -> None:
        self._now_s = now
        while self._ready_s is None and self._has_something_to_do():
            self._turn_round()

    def finish_step(self) -> list[TurnUpdate]:
        assert self._ready_s is not None, "the loop waits for nothing"
        self._now_s, self._ready_s = self._ready_s, None
        if not self._is_waiting:
            return []  # it slept
        self._is_waiting = False
        updates = self._process(self._in_flight.popleft())
        self._sleep_if_nothing_was_scheduled()
        return updates

    def generated(self) -> Iterable[tuple[str, int]]:
        for request in self._scheduler.running:
            yield request.request_id, request.num_output_tokens

    def take_answers(self) -> list[KvAnswer]:
        answers, self._answers = self._answers, []
        return answers

    def take_endings(self) -> list[LeaseEnding]:
        if not self._shape.is_patched:
            return []
        endings: list[LeaseEnding] = list(self._scheduler.mars.leases.endings.after(self._last_seq))
        if endings:
            self._last_seq = endings[-1].seq
        return endings

    def meters(self) -> EngineMeters:
        scheduler = self._scheduler
        pool, stats = scheduler.kv_cache_manager.block_pool, scheduler.kv_cache_manager.prefix_cache_stats
        headroom: RankHeadroom | None = None
        if self._shape.is_patched:
            headroom = self._scheduler.mars.headroom(self._last_seq)
        leased = headroom.leased_blocks if headroom is not None else None
        running, waiting = scheduler.get_request_counts()
        return EngineMeters(
            blocks=self._shape.kv_blocks,
            used_blocks=self._shape.kv_blocks - pool.get_num_free_blocks() - (leased or 0),
            leased_blocks=leased,
            running=running,
            waiting=waiting + len(self._inputs),
            preemptions=self._preemptions,
            prefix_queries=stats.queries,
            prefix_hits=stats.hits,
            steps=self._steps,
            passthrough=headroom.passthrough if headroom is not None else None,
        )

    # -- the loop --------------------------------------------------------------------------------

    def _has_something_to_do(self) -> bool:
        return bool(self._inputs or self._in_flight or self._scheduler.has_requests())

    def _turn_round(self) -> None:
        """Once through ``run_busy_loop``, up to where it waits."""
        while self._inputs:
            self._inputs.popleft()()
        self._has_scheduled = False
        if self._scheduler.has_requests():
            batch = self._schedule()
            self._has_scheduled = bool(batch.names)
            self._in_flight.append(batch)
            if len(self._in_flight) < self._depth and (batch.names or self._scheduler.has_requests()):
                self._sleep_if_nothing_was_scheduled()
                return
        if self._in_flight:
            self._wait_for_the_oldest()

    def _wait_for_the_oldest(self) -> None:
        oldest = self._in_flight[0]
        if oldest.names:
            self._is_waiting, self._ready_s = True, oldest.ends_s
            return
        self._process(self._in_flight.popleft())
        self._sleep_if_nothing_was_scheduled()

    def _sleep_if_nothing_was_scheduled(self) -> None:
        if not self._has_scheduled and self._scheduler.has_requests():
            self._ready_s = self._now_s + YIELD_S

    def _schedule(self) -> _Batch:
        output = self._scheduler.schedule()
        self._preemptions += len(output.preempted_req_ids or ())
        requests, names = self._scheduler.requests, list(output.num_scheduled_tokens)
        if not names:
            return _Batch(output, names, [], self._now_s)
        self._steps += 1
        begins_s = max(self._now_s, self._accelerator_free_s)
        self._accelerator_free_s = begins_s + self._step_seconds(_items(output))
        sampled = [not requests[name].is_prefill_chunk for name in names]
        return _Batch(output, names, sampled, self._accelerator_free_s)

    def _process(self, batch: _Batch) -> list[TurnUpdate]:
        result = ModelRunnerOutput(
            req_ids=batch.names,
            req_id_to_index={name: index for index, name in enumerate(batch.names)},
            sampled_token_ids=[
                self._sampled(name) if is_sampled else []
                for name, is_sampled in zip(batch.names, batch.has_sampled, strict=True)
            ],
        )
        updates: list[TurnUpdate] = []
        for outputs in self._scheduler.update_from_output(batch.output, result).values():
            updates += [self._updated(each) for each in outputs.outputs]
        return updates

    def _sampled(self, name: str) -> list[int]:
        turn = self._turns.get(name)
        return [turn.stream.id_at(turn.request.num_tokens)] if turn is not None else [0]

    def _updated(self, output: Any) -> TurnUpdate:
        name, is_over = output.request_id, output.finish_reason is not None
        turn = self._turns[name]
        if output.prefill_stats is not None:
            turn.cached_tokens = output.prefill_stats.num_cached_tokens
        if is_over:
            del self._turns[name]
        return TurnUpdate(name, turn.request.num_output_tokens, turn.cached_tokens, is_over)

    # -- the patch -------------------------------------------------------------------------------

    def _clock(self) -> float:
        return self._now_s


def _items(output: Any) -> list[tuple[float, int]]:
    new_tokens = output.num_scheduled_tokens
    cached = output.scheduled_cached_reqs
    items = [(new.num_computed_tokens, new_tokens[new.req_id]) for new in output.scheduled_new_reqs]
    items += zip(cached.num_computed_tokens, map(new_tokens.__getitem__, cached.req_ids), strict=True)
    return items


def _hasher(stream: TokenStream, block_tokens: int) -> Callable[[Request], list[bytes]]:
    """The stream has the hashes of its blocks, so none is computed twice."""

    def hashes_of(request: Request) -> list[bytes]:
        known, full = len(request.block_hashes), request.num_tokens // block_tokens
        return stream.hashes(known, full) if full > known else []

    return hashes_of


def _hash_block(parent: bytes | None, ids: list[int]) -> bytes:
    hashed: bytes = hash_block_tokens(sha256, parent, ids, None)
    return hashed

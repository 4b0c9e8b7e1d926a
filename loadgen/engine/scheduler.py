"""vLLM V1's scheduler, as a pure state machine: no clock, no asyncio, no tokens, only their numbers.

Theory of operation. A request has *known* tokens (prompt and answer so far) and *computed* tokens
(those whose KV is in its blocks). Every step tries to let computed catch up with known within a token
budget, so there is no separate prefill and decode: a prompt takes as many steps as its chunks need,
and a request that has caught up generates one token, which is one more known token.

``schedule`` builds the batch of a step, ``complete`` ends it; between the two the accelerator works,
and only ``add`` and ``abort`` may happen. In a step:

1. RUNNING requests first, in order. One that cannot get a block preempts the policy's victim, which
   loses its blocks (they stay findable) and later recomputes what is no longer cached.
2. Then WAITING ones, unless somebody was preempted. The head must fit *whole* (its known tokens less
   the cached prefix, and the cached blocks it would take out of the free queue) or it blocks all
   behind it; having been let in it gets blocks chunk by chunk.
3. A cached prefix never covers the last known token: its logits are needed, so the block that holds
   it is computed again.

A block enters the prefix cache when its last token is *scheduled*, so requests of one step can share.
Facts: vLLM 0.32 ``v1/core/sched/scheduler.py``, ``v1/core/kv_cache_manager.py``. Not modelled: async
scheduling's one step of delay after a stop, speculative decoding, KV connectors.

A store may hold *leases*: cached blocks kept for sessions that will return. They are no free blocks. Only
when free ones do not suffice is a lease broken, by the rules of ``_yielding``: for the head of the queue,
and for a running request before anybody is preempted. When nothing runs any lease gives way.

With ``SchedulerLimits.patch`` it is an engine with the backend patch: see ``loadgen.engine.patch``.
"""

from collections.abc import Collection
from dataclasses import dataclass, field

from loadgen.engine.patch import PatchedQueue, PatchRules, running_key
from loadgen.engine.queues import PolicyName, WaitingQueue, waiting_queue
from loadgen.engine.requests import EngineRequest, Phase
from loadgen.engine.stores import BlockStore, Hit, KvStore
from marsproxy.core.commands import YieldsTo

YIELDING_TO_ALL = tuple(YieldsTo)
YIELDING_TO_RETURNING = (YieldsTo.ANYBODY, YieldsTo.RETURNING)
YIELDING_TO_NEW = (YieldsTo.ANYBODY,)
"""Kinds of leases that give way: when nothing else runs, to what a session goes on with, to a new one."""


class RequestTooLargeError(ValueError):
    """Prompt and answer together can never fit the pool."""


@dataclass(frozen=True, slots=True)
class SchedulerLimits:
    """Defaults of ``vllm serve`` 0.32 on one data-centre accelerator, but for the pool size."""

    kv_blocks: int
    block_tokens: int = 16
    max_batched_tokens: int = 8192
    max_running: int = 256
    policy: PolicyName = "fcfs"
    patch: PatchRules | None = None
    """Of an engine with the backend patch."""


@dataclass(slots=True)
class Batch:
    """The work of one step, or of ``steps`` equal decode steps in a row."""

    scheduled: dict[EngineRequest, int] = field(default_factory=dict)
    """New tokens per request."""
    preempted: list[EngineRequest] = field(default_factory=list)
    steps: int = 1
    loaded_tokens: int = 0
    """KV that has to be copied from the host's memory before the step can run."""

    def items(self) -> list[tuple[int, int]]:
        """``(context_before, new_tokens)`` of each request, what step times are made of."""
        return [(request.computed_tokens, new) for request, new in self.scheduled.items()]


@dataclass(slots=True)
class Totals:
    """Counters since the start, named after the vLLM metrics that they feed."""

    prompt_tokens: int = 0
    generation_tokens: int = 0
    prompt_tokens_cached: int = 0
    prefix_cache_queries: int = 0
    prefix_cache_hits: int = 0
    preemptions: int = 0
    steps: int = 0
    finished: int = 0
    aborted: int = 0


class Scheduler:
    def __init__(self, limits: SchedulerLimits, store: KvStore | None = None) -> None:
        """``store`` is a block store of the limits' size if none is given."""
        for name in ("block_tokens", "max_batched_tokens", "max_running"):
            if getattr(limits, name) < 1:
                raise ValueError(f"{name} must be at least 1, not {getattr(limits, name)}")
        self.limits = limits
        self.pool: KvStore = BlockStore(limits.kv_blocks, limits.block_tokens) if store is None else store
        assert self.pool.total_blocks == limits.kv_blocks, "store and limits differ in size"
        self._patched: PatchedQueue | None = None
        self.waiting: WaitingQueue = waiting_queue(limits.policy)
        if limits.patch is not None:
            self.waiting = self._patched = PatchedQueue(
                limits.policy, limits.patch.aging_s, self.pool.is_leased
            )
        self._chunk_tokens = limits.max_batched_tokens
        """Of one prefill in one step, at the most."""
        self.running: list[EngineRequest] = []
        self.totals = Totals()
        self._queued = 0

    def __repr__(self) -> str:
        return f"<Scheduler {len(self.running)} running, {len(self.waiting)} waiting, {self.pool!r}>"

    @property
    def has_work(self) -> bool:
        return bool(self.running or self.waiting)

    @property
    def kv_used_ratio(self) -> float:
        return self.pool.used_blocks / self.pool.total_blocks

    def add(self, request: EngineRequest) -> None:
        if min(request.prompt_tokens, request.output_tokens) < 1:
            raise ValueError(f"request {request.request_id}: prompt and answer need at least one token")
        total_tokens = request.prompt_tokens + request.output_tokens
        if self._blocks_for(total_tokens) > self.pool.total_blocks:
            room = self.pool.total_blocks * self.limits.block_tokens
            raise RequestTooLargeError(
                f"request {request.request_id}: {total_tokens} tokens never fit a KV cache of {room} tokens"
            )
        self.pool.check(request)
        self._queued += 1
        request.queued_number = self._queued
        self.waiting.add(request)
        self.pool.claim(request)

    def abort(self, request: EngineRequest) -> None:
        """Forget the request at once, even in the middle of a step; a no-op once it is over."""
        if request.is_over:
            return
        if request.phase is Phase.RUNNING:
            self.running.remove(request)
        else:
            self.waiting.remove(request)
            if request.scheduled_s is None:
                self.pool.unclaim(request)
        self.pool.free(request)
        request.phase = Phase.ABORTED
        self.totals.aborted += 1

    def reprioritise(self, request: EngineRequest, priority: int) -> None:
        """Change its place in the queue, or its turn to be preempted; fcfs heeds neither."""
        if request.phase is Phase.WAITING:
            self.waiting.reprioritise(request, priority)
        else:
            request.priority = priority

    def schedule(self, now: float) -> Batch:
        """The next step's batch; empty when there is no work."""
        self.pool.expire(now)
        self._sort(now)
        batch = Batch()
        budget = self._schedule_running(batch)
        if not batch.preempted:
            self._schedule_waiting(batch, budget, now)
        return batch

    def complete(self, batch: Batch, now: float) -> list[EngineRequest]:
        """End the step: advance its requests and return those that generated, finished ones included."""
        self.totals.steps += batch.steps
        steps, running = batch.steps, Phase.RUNNING
        generated: list[EngineRequest] = []
        has_finished = False
        for request, new_tokens in batch.scheduled.items():  # the hottest loop of a simulation
            if request.phase is not running:
                continue  # aborted while the step ran
            computed_tokens = request.computed_tokens + new_tokens
            generated_tokens = request.generated_tokens
            if computed_tokens < request.prompt_tokens + generated_tokens:
                request.computed_tokens = computed_tokens
                continue
            request.computed_tokens = computed_tokens + steps - 1
            request.generated_tokens = generated_tokens = generated_tokens + steps
            generated.append(request)
            if request.first_token_s is None:
                self._count_first_token(request, now)
            if generated_tokens >= request.output_tokens:
                self._finish(request, now)
                has_finished = True
        self.totals.generation_tokens += steps * len(generated)
        if has_finished:
            self.running = [request for request in self.running if request.phase is running]
        return generated

    def next_change_s(self, now: float) -> float | None:
        """When time alone changes what the next step does: a lease ends, or somebody has waited too long."""
        expiry_s = self.pool.next_expiry_s
        aged_s = self._patched.next_aged_s(now) if self._patched is not None else None
        return min((at_s for at_s in (expiry_s, aged_s) if at_s is not None), default=None)

    def mergeable_decode_steps(self, now: float) -> int:
        """How many next steps would be the same pure decode batch, 0 if the next one is not.

        While only decodes run, nobody leaves before the shortest answer ends, and whoever waits
        keeps waiting: free blocks only become fewer, and nobody adds to the prefix that it would hit.
        The pool must have blocks for all of them, and no two may write one text: who of them writes
        a block first, so that it is the one that is found, shows only step by step.
        """
        running = self.running
        if not running or len(running) > self.limits.max_batched_tokens or self.pool.has_forks:
            return 0
        steps = running[0].output_tokens
        for request in running:
            generated = request.generated_tokens
            if not generated or request.prompt_tokens + generated - request.computed_tokens != 1:
                return 0
            remaining = request.output_tokens - generated
            if remaining < steps:
                steps = remaining
        if not self.is_queue_stuck(now):
            return 0
        while not self._can_grow(steps):
            steps //= 2
        return steps

    def is_queue_stuck(self, now: float) -> bool:
        """Whether nobody who waits can start for as long as those that run only decode, until
        ``next_change_s``."""
        if not len(self.waiting) or len(self.running) >= self.limits.max_running:
            return True
        if self._patched is not None:
            self._patched.resort(now)
        head = self.waiting.head()
        hit = self._prefix_hit(head)
        missing = self._missing_blocks(head, hit)
        if missing <= 0 or self.pool.can_reclaim(missing, self._yielding(head, now), head, hit):
            return False
        return not self.pool.is_read_by_others(head)

    def schedule_decodes(self, steps: int) -> Batch:
        """One batch for ``steps`` steps, at most what ``mergeable_decode_steps`` answered."""
        self.grow_decodes(steps)
        return Batch(dict.fromkeys(self.running, 1), steps=steps)

    def grow_decodes(self, steps: int) -> None:
        """Blocks for that many steps of those that run, one token each."""
        missing = self._blocks_to_grow(steps) - self.pool.free_blocks
        if missing > 0:
            self.pool.reclaim(missing, self._yielding_to_running(self.running[0]), self.running[0])
        for request in self.running:
            tokens = request.computed_tokens + steps
            if tokens > request.settled_tokens:
                grown = self.pool.try_grow(request, tokens)
                assert grown

    def _sort(self, now: float) -> None:
        """As the backend patch does before each step."""
        if self._patched is not None:
            self._patched.resort(now)
            self.running.sort(key=running_key)
            self._chunk_tokens = self.limits.max_batched_tokens
            is_alone = len(self.running) + len(self.waiting) <= 1  # then vLLM itself cuts nothing
            if self._patched.has_continuation and not is_alone:
                self._chunk_tokens //= 2

    # -- running ---------------------------------------------------------------------------------

    def _schedule_running(self, batch: Batch) -> int:
        """Fill the batch from those that run; what is left of the token budget."""
        budget = self.limits.max_batched_tokens
        running, scheduled = self.running, batch.scheduled
        index = 0
        while index < len(running) and budget > 0:
            request = running[index]
            computed_tokens = request.computed_tokens
            new_tokens = request.prompt_tokens + request.generated_tokens - computed_tokens
            if new_tokens > budget:
                new_tokens = budget
            if new_tokens > self._chunk_tokens:
                new_tokens = self._chunk_tokens
            tokens = computed_tokens + new_tokens
            while tokens > request.settled_tokens and not self.pool.try_grow(request, tokens):
                if self._try_reclaim_to_grow(request, tokens):
                    continue
                victim = self.waiting.victim(running)
                position = running.index(victim)
                budget += scheduled.pop(victim, 0)
                self._preempt(victim, position, batch)
                if victim is request:
                    return budget
                if position < index:
                    index -= 1
            scheduled[request] = new_tokens
            budget -= new_tokens
            index += 1
        return budget

    def _try_reclaim_to_grow(self, request: EngineRequest, tokens: int) -> bool:
        missing = self._blocks_for(tokens) - request.held_blocks - self.pool.free_blocks
        yielding = self._yielding_to_running(request)
        if not self.pool.can_reclaim(missing, yielding, request):
            return False
        self.pool.reclaim(missing, yielding, request)
        return True

    def _yielding_to_running(self, request: EngineRequest) -> Collection[YieldsTo]:
        """The leases that give way to this request, which runs. Rather than break one that yields to nobody
        it preempts, but not in the patched engine."""
        if self.running == [request] or self._patched is not None:
            return YIELDING_TO_ALL
        is_returning = request.may_break_leases or request.generated_tokens
        return YIELDING_TO_RETURNING if is_returning else YIELDING_TO_NEW

    def _yielding(self, request: EngineRequest, now: float) -> Collection[YieldsTo]:
        """The leases that give way to this request, which waits."""
        if not self.running:
            return YIELDING_TO_ALL
        if request.may_break_leases or request.generated_tokens:
            return YIELDING_TO_RETURNING
        if self._patched is not None and (request.preemptions or self._patched.has_aged(request, now)):
            return YIELDING_TO_RETURNING
        return YIELDING_TO_NEW

    def _preempt(self, request: EngineRequest, position: int, batch: Batch) -> None:
        del self.running[position]
        self.pool.free(request)
        request.phase = Phase.WAITING
        request.computed_tokens = 0
        request.preemptions += 1
        self.totals.preemptions += 1
        batch.preempted.append(request)
        self.waiting.add_preempted(request)

    # -- waiting ---------------------------------------------------------------------------------

    def _schedule_waiting(self, batch: Batch, budget: int, now: float) -> None:
        while budget > 0 and len(self.waiting) and len(self.running) < self.limits.max_running:
            request = self.waiting.head()
            hit = self._try_make_room(request, now)
            if hit is None:
                return  # head-of-line blocking, as in vLLM
            self.waiting.pop()
            budget -= self._start(request, hit, budget, batch, now)

    def _start(self, request: EngineRequest, hit: Hit, budget: int, batch: Batch, now: float) -> int:
        hit_tokens = (hit.blocks + hit.host_blocks) * self.limits.block_tokens
        batch.loaded_tokens += hit.host_blocks * self.limits.block_tokens
        self.pool.take(request, hit)
        request.computed_tokens = hit_tokens
        request.phase = Phase.RUNNING
        self._count_lookup(request, hit_tokens)
        if request.scheduled_s is None:
            request.scheduled_s = now
        new_tokens = min(request.known_tokens - hit_tokens, budget, self._chunk_tokens)
        grown = self.pool.try_grow(request, hit_tokens + new_tokens)
        assert grown, "the fit check covers every chunk"
        self.running.append(request)
        batch.scheduled[request] = new_tokens
        return new_tokens

    def _prefix_hit(self, request: EngineRequest) -> Hit:
        return self.pool.find(request, (request.known_tokens - 1) // self.limits.block_tokens)

    def _try_make_room(self, request: EngineRequest, now: float) -> Hit | None:
        """Its cached prefix if it fits whole, leases broken if they must be; None if it does not fit."""
        hit = self._prefix_hit(request)
        missing = self._missing_blocks(request, hit)
        if missing > 0:
            yielding = self._yielding(request, now)
            if not self.pool.can_reclaim(missing, yielding, request, hit):
                return None
            self.pool.reclaim(missing, yielding, request, hit)
            hit = self._prefix_hit(request)
            assert self._missing_blocks(request, hit) <= 0
        return hit

    def _missing_blocks(self, request: EngineRequest, hit: Hit) -> int:
        blocks = self._blocks_for(request.known_tokens) - self.pool.free_blocks
        if blocks <= 0:
            return 0  # even if nothing of it were cached
        return blocks - hit.blocks + self.pool.idle_blocks(hit)

    def _count_lookup(self, request: EngineRequest, hit_tokens: int) -> None:
        """Only the first admission counts; a resumed request would hit its own blocks."""
        if request.cached_tokens is not None:
            return
        request.cached_tokens = hit_tokens
        self.totals.prefix_cache_queries += request.known_tokens
        self.totals.prefix_cache_hits += hit_tokens

    # -- ends ------------------------------------------------------------------------------------

    def _count_first_token(self, request: EngineRequest, now: float) -> None:
        request.first_token_s = now
        self.totals.prompt_tokens += request.prompt_tokens
        self.totals.prompt_tokens_cached += request.cached_tokens or 0

    def _finish(self, request: EngineRequest, now: float) -> None:
        self.pool.free(request, finished_s=now)
        request.phase = Phase.FINISHED
        self.totals.finished += 1

    def _blocks_for(self, tokens: int) -> int:
        return -(-tokens // self.limits.block_tokens)

    def _can_grow(self, steps: int) -> bool:
        missing = self._blocks_to_grow(steps) - self.pool.free_blocks
        if missing <= 0:
            return True
        first = self.running[0]
        return self.pool.can_reclaim(missing, self._yielding_to_running(first), first)

    def _blocks_to_grow(self, steps: int) -> int:
        blocks = 0
        block_tokens = self.limits.block_tokens
        for request in self.running:
            tokens = request.computed_tokens + steps
            if tokens > request.settled_tokens:
                blocks += -(-tokens // block_tokens) - request.held_blocks
        return blocks

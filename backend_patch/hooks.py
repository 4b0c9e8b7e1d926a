"""What the patch does at each point of vLLM's scheduler that it holds on to.

Owns the hooks' bodies and what they share: turns, sessions, leases, meters. It imports nothing of vLLM; the
scheduler's members that it uses are in ``Scheduler``. Every body is guarded: after an error all leases are
released and vLLM does everything alone.
"""

import logging
import time
from collections.abc import Callable
from typing import Any, Protocol

from backend_patch import prefills, room
from backend_patch.cache_view import CacheView
from backend_patch.guard import Guarded, ignore_errors
from backend_patch.lease_table import LeaseTable
from backend_patch.meters import Meters
from backend_patch.order import WaitClass, WaitingKey, waiting_key
from backend_patch.prefills import Prefills
from backend_patch.protocol import KvAnswer, KvRequest, KvStatus, RankHeadroom, SessionsQuery, SessionState
from backend_patch.publishing import Interval, Publisher
from backend_patch.request_meta import read_meta
from backend_patch.retention import Retention
from backend_patch.room import Room
from backend_patch.settings import PatchSettings
from backend_patch.state_report import StateReport
from backend_patch.turns import Turn, Turns

logger = logging.getLogger(__name__)

ENDED_WELL = frozenset({"FINISHED_STOPPED", "FINISHED_LENGTH_CAPPED"})
"""Names of vLLM's ``RequestStatus`` after which a session may go on."""


class WaitingQueue(Protocol):
    """Of ``vllm_queue.AgentQueue``."""

    def refresh(self, aged_before_s: float, changed: Any = None) -> None: ...


class Scheduler(prefills.Scheduler, room.Scheduler, Protocol):
    """vLLM's, as far as it is used here."""


class Hooks:
    def __init__(
        self,
        settings: PatchSettings,
        scheduler: Scheduler,
        cache: CacheView,
        publisher: Publisher,
        rank: int,
        clock: Callable[[], float] = time.monotonic,
    ) -> None:
        self.settings = settings
        self.passthrough: str | None = None
        self.clock = clock
        """Seconds, never backwards. A driver in virtual time puts its own here."""
        self.cache = cache
        budget = int(settings.max_leased_share * cache.total_blocks)
        self.leases = LeaseTable(cache.pool, budget, cache.block_tokens, cache.groups)
        self.retention = Retention(settings, cache, self.leases, cache.total_blocks)
        self.turns = Turns()
        self.room = Room(scheduler, cache, self.leases, self.turns)
        self.meters = Meters()
        self.queue: WaitingQueue | None = None
        """None where vLLM's own is in use."""
        self._scheduler = scheduler
        self._publisher = publisher
        self._interval = Interval()
        self._report = StateReport(self, rank)
        self._prefills = Prefills(scheduler, self.turns)
        self._configured_chunk: int = scheduler.scheduler_config.long_prefill_token_threshold
        self._short_chunk = _short_chunk(scheduler.scheduler_config)

    # -- requests come and go --------------------------------------------------------------------

    @Guarded(None)
    def request_added(self, request: Any) -> None:
        if request.request_id in self._scheduler.requests:
            return  # the next piece of a streamed input
        now = self.clock()
        meta = read_meta(request)
        record, leased_tokens = None, 0
        if meta.key is not None:
            lease = self.leases.get(meta.key)
            leased_tokens = self.leases.tokens_of(lease) if lease is not None else 0
            record = self.retention.arrived(meta.key, request.arrival_time, now)
        self.turns.add(request, meta, record, leased_tokens, now)

    @Guarded(None)
    def request_ended(self, request: Any) -> None:
        """Before anything of it is freed."""
        turn = self.turns.get(request.request_id)
        if turn is None:
            return
        self._prefills.discard(request)
        record = turn.record
        if record is not None:
            if request.status.name in ENDED_WELL:
                self.retention.sessions.learn(record, request.block_hashes, request.num_tokens)
            if turn.is_waiting:
                self.retention.withdrawn(record)
            self.retention.sessions.ended(record, self.clock())
        self.turns.started(turn)

    @Guarded(None)
    def blocks_freeing(self, request: Any) -> None:
        """Its blocks are still its own."""
        turn = self.turns.get(request.request_id)
        if turn is None or turn.record is None or request.status.name not in ENDED_WELL:
            return
        if turn.meta.is_final:
            turn.record.is_ending = True
        elif turn.meta.ttl_s > 0 and not turn.record.is_ending:
            blocks = self.cache.of_request(request.request_id)
            self.retention.pin(turn.record, blocks, turn.meta, self.clock())

    @Guarded(None)
    def blocks_freed(self, request: Any) -> None:
        turn = self.turns.pop(request.request_id)
        if turn is not None and turn.record is not None and turn.record.is_ending and not turn.record.live:
            self.retention.finish(turn.record)

    @Guarded(None)
    def request_preempted(self, request: Any) -> None:
        self._prefills.discard(request)
        self._report.preemptions_total += 1

    @Guarded(None)
    def cache_resetting(self) -> None:
        self.retention.reset()

    # -- a step ----------------------------------------------------------------------------------

    @Guarded(otherwise=False)
    def step_beginning(self) -> bool:
        """Whether somebody might find no blocks in this step while leases hold some. That is asked once, and
        else would be for every request that runs."""
        now = self.clock()
        self.leases.expire(now)
        if self.queue is not None:
            self.queue.refresh(now - self.settings.aging_s, self._changed_turns())
        if self._prefills and self.settings.order:
            self._prefills.sort_running()
        if self.settings.interleave:
            waits = self.turns.waiting_continuations > 0
            chunk = self._short_chunk if waits else self._configured_chunk
            self._scheduler.scheduler_config.long_prefill_token_threshold = chunk
        return self.room.may_run_short()

    def step_scheduled(self, output: Any) -> None:
        self._step_scheduled(output)
        self._tell_alone()

    @Guarded(None)
    def _step_scheduled(self, output: Any) -> None:
        scheduled: dict[str, int] = output.num_scheduled_tokens
        new, resumed = output.scheduled_new_reqs, output.scheduled_cached_reqs.resumed_req_ids
        for each in new:
            self._turn_started(each.req_id, each.num_computed_tokens)
        prefill_tokens = 0
        if new or resumed or self._prefills:
            prefill_tokens = self._prefills.count([*(each.req_id for each in new), *resumed], scheduled)
        now = self.clock()
        if scheduled:
            decodes = output.total_num_scheduled_tokens - prefill_tokens
            self.meters.scheduled(prefill_tokens, decodes, now)
        else:
            self._publish(now)

    def step_ended(self, output: Any) -> None:
        self._step_ended(output)
        self._tell_alone()

    @Guarded(None)
    def _step_ended(self, output: Any) -> None:
        now = self.clock()
        if output.num_scheduled_tokens:
            self.meters.ended(now)
        self._publish_if_due(now)

    def _changed_turns(self) -> set[Any] | None:
        """Waiting requests whose session's lease began or ended since the last step."""
        keys = self.leases.take_claimed_changes()
        if keys is None:
            return None
        records = ((key, self.retention.sessions.get(key)) for key in keys)
        waiting = {key for key, record in records if record is not None and record.waiting}
        return self.turns.waiting_of(waiting) if waiting else None

    def _turn_started(self, request_id: str, hit_tokens: int) -> None:
        turn = self.turns.get(request_id)
        if turn is None or not turn.is_waiting:
            return
        self.turns.started(turn)
        self._report.prefix_queries_total += turn.request.num_tokens
        self._report.prefix_hits_total += hit_tokens
        if turn.record is not None:
            self.retention.scheduled(turn.record, turn.request.block_hashes, hit_tokens)

    # -- the waiting queue -----------------------------------------------------------------------

    @Guarded(otherwise=0.0)
    def queued_at_s(self, request: Any) -> float:
        turn = self.turns.get(request.request_id)
        return turn.queued_at_s if turn is not None else 0.0

    def waiting_key(self, request: Any) -> WaitingKey:
        return self._waiting_key(request) or (1, 0, 0, 0.0, request.arrival_time, 0)

    @Guarded(None)
    def _waiting_key(self, request: Any) -> WaitingKey | None:
        turn = self.turns.get(request.request_id)
        record = turn.record if turn is not None else None
        arrival_s: float = request.arrival_time
        has_aged = turn is not None and turn.queued_at_s < self._aged_before_s
        return waiting_key(
            goes_first=request.status.name == "PREEMPTED" or has_aged,
            priority=request.priority,
            wait_class=self._wait_class(turn),
            session_arrival_s=record.session_arrival_s if record is not None else arrival_s,
            arrival_s=arrival_s,
            number=turn.number if turn is not None else 0,
        )

    def _wait_class(self, turn: Turn | None) -> WaitClass:
        if turn is None or not turn.is_continuation:
            return WaitClass.NEW
        is_warm = turn.key is not None and self.leases.get(turn.key) is not None
        return WaitClass.WARM if is_warm else WaitClass.COLD

    @property
    def _aged_before_s(self) -> float:
        return self.clock() - self.settings.aging_s

    # -- memory ----------------------------------------------------------------------------------

    @Guarded(otherwise=False)
    def make_room(self, request: Any, new_tokens: int, asked: dict[str, Any], attempt: int) -> bool:
        """vLLM found no blocks for this request: whether leases have given way, so that it may ask again."""
        return self.room.make(request, new_tokens, asked, attempt, self._aged_before_s)

    # -- what others ask -------------------------------------------------------------------------

    def apply(self, batch: list[KvRequest]) -> list[KvAnswer]:
        return [self._apply(each) or self._refusal(each) for each in batch]

    @Guarded(None)
    def _apply(self, request: KvRequest) -> KvAnswer | None:
        return self.retention.apply(request, self.clock())

    def _refusal(self, request: KvRequest) -> KvAnswer:
        return KvAnswer(KvStatus.REJECTED, request.session, request.op, reason="passthrough")

    def states(self, query: SessionsQuery) -> list[SessionState]:
        return self._states(query) or []

    @Guarded(None)
    def _states(self, query: SessionsQuery) -> list[SessionState] | None:
        self._expire()
        return self.retention.states(query.session, with_resident=query.with_resident, now=self.clock())

    def headroom(self, after: int) -> RankHeadroom:
        """With the lease endings later than that."""
        self._expire()
        return self._report.headroom(self._scheduler, self.clock(), after)

    @Guarded(None)
    def _expire(self) -> None:
        """An idle engine takes no step that would."""
        self.leases.expire(self.clock())

    def publish(self) -> None:
        self._publish_guarded(self.clock())

    @Guarded(None)
    def _publish_guarded(self, now: float) -> None:
        self._publish(now)

    def _tell_alone(self) -> None:
        """Having stepped aside: else readers would see the requests of that moment for ever."""
        if self.passthrough is not None:
            ignore_errors(lambda: self._publish_if_due(self.clock()))

    def _publish_if_due(self, now: float) -> None:
        if self._interval.is_due(now) or not self._scheduler.requests:
            self._publish(now)

    def _publish(self, now: float) -> None:
        self._interval.done(now)
        self._publisher.write(self._report.encoded(self._scheduler, now))

    # -- the end ---------------------------------------------------------------------------------

    def step_aside(self, hook: str, error: Exception) -> None:
        """Not an end of the engine's: vLLM goes on with what it has."""
        hook = hook.lstrip("_")
        self.passthrough = f"{hook}: {type(error).__name__}"
        logger.error("MARS: %s failed; all leases are released, vLLM goes on alone", hook, exc_info=error)
        ignore_errors(self.leases.release_all)
        self._scheduler.scheduler_config.long_prefill_token_threshold = self._configured_chunk
        self._prefills.clear()
        self.turns.clear()
        ignore_errors(lambda: self._publish(self.clock()))

    def close(self) -> None:
        ignore_errors(self.leases.release_all)
        ignore_errors(self._publisher.close)


class NoHooks:
    """In the place of ``Hooks`` where they could not be made: vLLM is alone from the start."""

    passthrough = "not put in"
    queue = None

    def _nothing(self, *_: object) -> None: ...

    request_added = request_ended = request_preempted = _nothing
    blocks_freeing = blocks_freed = cache_resetting = _nothing
    step_beginning = step_scheduled = step_ended = close = _nothing


def _short_chunk(config: Any) -> int:
    """Half of a step's tokens, so that a continuation's prefill fits beside a long one's chunk."""
    half = max(1, int(config.max_num_batched_tokens) // 2)
    return min(int(config.long_prefill_token_threshold) or half, half)

"""vLLM's scheduler with the patch in it: ``--scheduler-cls backend_patch.vllm_scheduler.make_scheduler``.

Owns the overriding: each method calls ``super()``, never guarded, with a guarded hook before or after it.
What the hooks do is in ``hooks``; the places of vLLM that are held on to are in ``contract``. Where one of
those is missing, or the patch cannot be put in, vLLM's own scheduler runs and a line in the log says why.
"""

import logging
from collections.abc import Callable
from typing import TYPE_CHECKING, Any

import vllm
from vllm.v1.core.sched.async_scheduler import AsyncScheduler
from vllm.v1.core.sched.request_queue import create_request_queue
from vllm.v1.core.sched.scheduler import Scheduler
from vllm.v1.engine.core import EngineCore

from backend_patch import contract
from backend_patch.cache_view import CacheView
from backend_patch.hooks import Hooks, NoHooks
from backend_patch.protocol import RPC_METHOD, Capabilities, Hook
from backend_patch.publishing import NoPublisher, Publisher
from backend_patch.rpc import answer
from backend_patch.settings import PatchSettings
from backend_patch.snapshot import SnapshotWriter
from backend_patch.vllm_queue import AgentQueue

if TYPE_CHECKING:
    from vllm.v1.core.sched.scheduler import Scheduler as Stock
else:
    Stock = object

logger = logging.getLogger(__name__)

HOST_TIERS = frozenset({"OffloadingConnector", "SimpleCPUOffloadConnector"})
"""Connectors that write what is computed through to host memory (vLLM 0.28 to 0.33)."""


class MarsMixin(Stock):  # type: ignore[misc]
    """Before ``Scheduler`` or ``AsyncScheduler`` in the order of resolution."""

    mars: Hooks | NoHooks
    places: tuple[Hook, ...] = ()
    """What was looked at of vLLM, and found."""

    def __init__(self, *args: Any, **kwargs: Any) -> None:
        super().__init__(*args, **kwargs)
        self._is_reclaiming = False
        settings = PatchSettings.from_additional_config(self.vllm_config.additional_config)
        try:
            self._install(settings, kwargs)
        except Exception:
            logger.exception("MARS: vLLM's scheduler works alone, as the patch could not be put in")
            self.mars = NoHooks()

    @property
    def clock(self) -> Callable[[], float]:
        """Seconds, never backwards; a driver in virtual time sets its own."""
        return self._hooks.clock

    @clock.setter
    def clock(self, clock: Callable[[], float]) -> None:
        self._hooks.clock = clock

    @property
    def _hooks(self) -> Hooks:
        assert isinstance(self.mars, Hooks), "the patch could not be put in"
        return self.mars

    def _install(self, settings: PatchSettings, arguments: dict[str, Any]) -> None:
        """What may fail comes first: vLLM's own members are touched only when all is there."""
        hooks = Hooks(
            settings, self, _cache_view(self, arguments), _publisher(self, settings), _rank(self.vllm_config)
        )
        queue = AgentQueue(hooks.waiting_key, hooks.queued_at_s)
        allocate_slots = self.kv_cache_manager.allocate_slots
        hooks.publish()
        self.mars = hooks
        if settings.order:
            self.waiting = hooks.queue = queue
        self._instance_id = self.vllm_config.instance_id  # vLLM gives it another one when all is set up.
        self._allocations = (allocate_slots, _reclaiming(allocate_slots, hooks.make_room))
        _install_rpc()

    # -- overridden ------------------------------------------------------------------------------

    def add_request(self, request: Any) -> None:
        self.mars.request_added(request)
        super().add_request(request)

    def schedule(self, *args: Any, **kwargs: Any) -> Any:
        may_run_short = bool(self.mars.step_beginning())
        if self.mars.passthrough is not None and self.mars.queue is not None:
            self._restore_queue()
        self._choose_allocation(may_run_short=may_run_short)
        output = super().schedule(*args, **kwargs)
        self.mars.step_scheduled(output)
        return output

    def update_from_output(self, scheduler_output: Any, *args: Any, **kwargs: Any) -> Any:
        outputs = super().update_from_output(scheduler_output, *args, **kwargs)
        self.mars.step_ended(scheduler_output)
        return outputs

    def _preempt_request(self, request: Any, *args: Any, **kwargs: Any) -> None:
        super()._preempt_request(request, *args, **kwargs)
        self.mars.request_preempted(request)

    def _free_request(self, request: Any, *args: Any, **kwargs: Any) -> Any:
        self.mars.request_ended(request)
        return super()._free_request(request, *args, **kwargs)

    def _free_blocks(self, request: Any) -> None:
        self.mars.blocks_freeing(request)
        super()._free_blocks(request)
        self.mars.blocks_freed(request)

    def reset_prefix_cache(self, *args: Any, **kwargs: Any) -> Any:
        self.mars.cache_resetting()
        return super().reset_prefix_cache(*args, **kwargs)

    def shutdown(self) -> None:
        self.mars.close()
        super().shutdown()

    # -- put in ----------------------------------------------------------------------------------

    def mars_rpc(self, op: str, body: str = "") -> str:
        return answer(self._hooks, self._capabilities, op, body)

    def _choose_allocation(self, *, may_run_short: bool) -> None:
        if may_run_short != self._is_reclaiming:
            self._is_reclaiming = may_run_short
            self.kv_cache_manager.allocate_slots = self._allocations[may_run_short]

    def _restore_queue(self) -> None:
        """Only between two steps: vLLM peeks at its queue and pops from it later in the same step."""
        waiting = sorted(self.waiting, key=_stock_place)
        self.mars.queue = None
        self.waiting = create_request_queue(self.policy)
        for request in waiting:
            self.waiting.add_request(request)

    def _capabilities(self) -> Capabilities:
        settings, config = self._hooks.settings, self.vllm_config
        return Capabilities(
            patch_version=contract.patch_version(),
            vllm_version=vllm.__version__,
            async_scheduling=isinstance(self, AsyncScheduler),
            scheduling_policy=str(config.scheduler_config.policy),
            max_leased_share=settings.max_leased_share if settings.leases else 0.0,
            max_ttl_s=settings.max_ttl_s,
            has_host_tier=self._hooks.cache.has_host_tier,
            passthrough=self.mars.passthrough,
            hooks=self.places,
            instance_id=self._instance_id,
        )


class MarsScheduler(MarsMixin, Scheduler):  # type: ignore[misc]
    """Synchronous."""


class MarsAsyncScheduler(MarsMixin, AsyncScheduler):  # type: ignore[misc]
    """Schedules a step while the one before it runs."""


def make_scheduler(*, vllm_config: Any, **kwargs: Any) -> Any:
    """The class that fits the configuration: a plain ``Scheduler`` where ``AsyncScheduler`` is due would lose
    the overlap of scheduling and computing without a word."""
    is_async = vllm_config.scheduler_config.async_scheduling
    places = _fitting_places()
    if places is None:
        stock = AsyncScheduler if is_async else Scheduler
        return stock(vllm_config=vllm_config, **kwargs)
    patched = MarsAsyncScheduler if is_async else MarsScheduler
    scheduler = patched(vllm_config=vllm_config, **kwargs)
    scheduler.places = places
    return scheduler


def _fitting_places() -> tuple[Hook, ...] | None:
    """None if this vLLM lacks what the patch holds on to; the log says what."""
    try:
        places = contract.check()
    except Exception:
        logger.exception("MARS: the scheduler is vLLM's own, as the patch could not look at vLLM")
        return None
    missing = "; ".join(f"{hook.name}: {hook.detail}" for hook in contract.missing(places))
    if missing:
        logger.error("MARS: the scheduler is vLLM's own, as vLLM %s lacks %s", vllm.__version__, missing)
        return None
    return places


def _reclaiming(allocate_slots: Callable[..., Any], make_room: Callable[..., bool]) -> Callable[..., Any]:
    """``KVCacheManager.allocate_slots``, again as long as leases give way. Runs for each request of a step.
    What is optional comes by keyword in all releases looked at."""

    def again(request: Any, num_new_tokens: int, *args: Any, **kwargs: Any) -> Any:
        blocks = allocate_slots(request, num_new_tokens, *args, **kwargs)
        attempt = 0
        while blocks is None and make_room(request, num_new_tokens, kwargs, attempt):
            blocks = allocate_slots(request, num_new_tokens, *args, **kwargs)
            attempt += 1
        return blocks

    return again


def _cache_view(scheduler: Any, arguments: dict[str, Any]) -> CacheView:
    """``block_size`` and ``hash_block_size`` are arguments of the scheduler; the second is newer."""
    block_tokens = int(arguments.get("block_size") or scheduler.block_size)
    hash_tokens = int(arguments.get("hash_block_size") or block_tokens)
    transfer = scheduler.vllm_config.kv_transfer_config
    has_host_tier = scheduler.connector is not None and transfer.kv_connector in HOST_TIERS
    return CacheView(scheduler.kv_cache_manager, block_tokens, hash_tokens, has_host_tier=has_host_tier)


def _publisher(scheduler: Any, settings: PatchSettings) -> Publisher:
    if not settings.publish:
        return NoPublisher()
    try:
        return SnapshotWriter(scheduler.vllm_config.instance_id, _rank(scheduler.vllm_config))
    except (OSError, ValueError):
        logger.exception("MARS: no shared memory for the headroom; it is answered between steps only")
        return NoPublisher()


def _rank(config: Any) -> int:
    return int(config.parallel_config.data_parallel_index)


def _install_rpc() -> None:
    """The engine finds what is called by its name; this it hands on to its scheduler."""

    def mars_rpc(core: Any, op: str, body: str = "") -> str:
        text: str = core.scheduler.mars_rpc(op, body)
        return text

    setattr(EngineCore, RPC_METHOD, mars_rpc)


def _stock_place(request: Any) -> tuple[bool, float]:
    return request.status.name != "PREEMPTED", request.arrival_time

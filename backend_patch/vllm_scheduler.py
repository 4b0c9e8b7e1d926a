"""vLLM's scheduler with the patch in it: ``--scheduler-cls backend_patch.vllm_scheduler.make_scheduler``.

Owns the overriding: each method calls ``super()``, never guarded, with a guarded hook before or after it.
What the hooks do is in ``hooks``. Places of vLLM that are held on to, and the releases in which they were
looked at, are in ``contract``.
"""

import logging
from importlib.metadata import PackageNotFoundError, version
from typing import Any

import vllm
from vllm.v1.core.sched.async_scheduler import AsyncScheduler
from vllm.v1.core.sched.request_queue import create_request_queue
from vllm.v1.core.sched.scheduler import Scheduler
from vllm.v1.engine.core import EngineCore

from backend_patch.cache_view import CacheView
from backend_patch.hooks import Hooks
from backend_patch.protocol import RPC_METHOD, Capabilities
from backend_patch.publishing import NoPublisher, Publisher
from backend_patch.rpc import answer
from backend_patch.settings import PatchSettings
from backend_patch.vllm_queue import AgentQueue

logger = logging.getLogger(__name__)

DISTRIBUTION = "marsproxy"
HOST_TIERS = frozenset({"OffloadingConnector", "SimpleCPUOffloadConnector"})
"""Connectors that write what is computed through to host memory (vLLM 0.28 to 0.33)."""


class MarsMixin:
    """Before ``Scheduler`` or ``AsyncScheduler`` in the order of resolution."""

    def __init__(self, *args: Any, **kwargs: Any) -> None:
        super().__init__(*args, **kwargs)
        scheduler: Any = self
        config = scheduler.vllm_config
        settings = PatchSettings.from_additional_config(config.additional_config)
        self.mars = Hooks(
            settings, scheduler, _cache_view(scheduler, kwargs), _publisher(config), _rank(config)
        )
        if settings.order:
            queue = AgentQueue(self.mars.waiting_key, self.mars.queued_at_s)
            queue.prepend_requests(scheduler.waiting)
            scheduler.waiting = self.mars.queue = queue
        self._stock_allocate_slots = scheduler.kv_cache_manager.allocate_slots
        scheduler.kv_cache_manager.allocate_slots = self._allocate_slots
        _install_rpc()
        self.mars.publish()

    def add_request(self, request: Any) -> None:
        self.mars.request_added(request)
        super().add_request(request)  # type: ignore[misc]

    def schedule(self, *args: Any, **kwargs: Any) -> Any:
        self.mars.step_beginning()
        if self.mars.passthrough is not None and self.mars.queue is not None:
            self._restore_queue()
        output = super().schedule(*args, **kwargs)  # type: ignore[misc]
        self.mars.step_scheduled(output)
        return output

    def update_from_output(self, scheduler_output: Any, *args: Any, **kwargs: Any) -> Any:
        outputs = super().update_from_output(scheduler_output, *args, **kwargs)  # type: ignore[misc]
        self.mars.step_ended(scheduler_output)
        return outputs

    def _preempt_request(self, request: Any, *args: Any, **kwargs: Any) -> None:
        super()._preempt_request(request, *args, **kwargs)  # type: ignore[misc]
        self.mars.request_preempted(request)

    def _free_request(self, request: Any, *args: Any, **kwargs: Any) -> Any:
        self.mars.request_ended(request)
        return super()._free_request(request, *args, **kwargs)  # type: ignore[misc]

    def _free_blocks(self, request: Any) -> None:
        self.mars.blocks_freeing(request)
        super()._free_blocks(request)  # type: ignore[misc]
        self.mars.blocks_freed(request)

    def reset_prefix_cache(self, *args: Any, **kwargs: Any) -> bool:
        self.mars.cache_resetting()
        done: bool = super().reset_prefix_cache(*args, **kwargs)  # type: ignore[misc]
        return done

    def shutdown(self) -> None:
        self.mars.close()
        super().shutdown()  # type: ignore[misc]

    def mars_rpc(self, op: str, body: str = "") -> str:
        return answer(self.mars, self._capabilities, op, body)

    def _allocate_slots(self, request: Any, num_new_tokens: int, *args: Any, **kwargs: Any) -> Any:
        """``KVCacheManager.allocate_slots``, again as long as leases give way. Optional arguments come by
        keyword in all releases looked at; were one to come by place, the sums fall short, and the doubling
        finds the number."""
        attempt = 0
        while True:
            blocks = self._stock_allocate_slots(request, num_new_tokens, *args, **kwargs)
            if blocks is not None or not self.mars.make_room(request, num_new_tokens, kwargs, attempt):
                return blocks
            attempt += 1

    def _capabilities(self) -> Capabilities:
        config: Any = self.vllm_config  # type: ignore[attr-defined]
        settings = self.mars.settings
        return Capabilities(
            patch_version=_patch_version(),
            vllm_version=vllm.__version__,
            async_scheduling=isinstance(self, AsyncScheduler),
            scheduling_policy=str(config.scheduler_config.policy),
            max_leased_share=settings.max_leased_share if settings.leases else 0.0,
            max_ttl_s=settings.max_ttl_s,
            has_host_tier=self.mars.cache.has_host_tier,
            passthrough=self.mars.passthrough,
        )

    def _restore_queue(self) -> None:
        """Between two steps: vLLM peeks at its queue and pops from it later in the same step."""
        scheduler: Any = self
        waiting = sorted(scheduler.waiting, key=_stock_place)
        scheduler.waiting = create_request_queue(scheduler.policy)
        for request in waiting:
            scheduler.waiting.add_request(request)
        self.mars.queue = None


class MarsScheduler(MarsMixin, Scheduler):
    """Synchronous."""


class MarsAsyncScheduler(MarsMixin, AsyncScheduler):
    """Schedules a step while the one before it runs."""


def make_scheduler(*, vllm_config: Any, **kwargs: Any) -> Scheduler:
    """The one that fits the configuration: a plain ``Scheduler`` where ``AsyncScheduler`` is due would lose
    the overlap of scheduling and computing without a word."""
    is_async = vllm_config.scheduler_config.async_scheduling
    scheduler_class = MarsAsyncScheduler if is_async else MarsScheduler
    return scheduler_class(vllm_config=vllm_config, **kwargs)


def _cache_view(scheduler: Any, arguments: dict[str, Any]) -> CacheView:
    """``block_size`` and ``hash_block_size`` come by keyword from the engine; the second is newer."""
    block_tokens = int(arguments.get("block_size") or scheduler.block_size)
    hash_tokens = int(arguments.get("hash_block_size") or block_tokens)
    transfer = scheduler.vllm_config.kv_transfer_config
    has_host_tier = scheduler.connector is not None and transfer.kv_connector in HOST_TIERS
    return CacheView(scheduler.kv_cache_manager, block_tokens, hash_tokens, has_host_tier=has_host_tier)


def _publisher(config: Any) -> Publisher:
    del config
    return NoPublisher()


def _rank(config: Any) -> int:
    return int(getattr(config.parallel_config, "data_parallel_index", 0))


def _patch_version() -> str:
    try:
        return version(DISTRIBUTION)
    except PackageNotFoundError:
        return "unknown"  # run from a source tree


def _install_rpc() -> None:
    """The engine answers calls by name of method; this one it hands on to its scheduler."""

    def mars_rpc(core: Any, op: str, body: str = "") -> str:
        answer_text: str = core.scheduler.mars_rpc(op, body)
        return answer_text

    setattr(EngineCore, RPC_METHOD, mars_rpc)


def _stock_place(request: Any) -> tuple[bool, float]:
    return request.status.name != "PREEMPTED", request.arrival_time

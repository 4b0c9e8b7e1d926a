"""What the patch holds on to in vLLM, and whether an installed or unpacked vLLM still has it.

Owns the complete list of hooks with the parameters that are relied on, and which releases are supported.
vLLM's scheduler interface is declared private and a release comes every two weeks, so the list is short,
holds only what has been the same from 0.28 to 0.33, and is compared with the source before anything is
hooked. Reads source files; it must not import vllm, so that it also answers for a vLLM that cannot start.
"""

from dataclasses import dataclass
from enum import StrEnum
from importlib.metadata import PackageNotFoundError, version
from importlib.util import find_spec
from pathlib import Path

from backend_patch.outline import Outline, Signature, read_outline
from backend_patch.protocol import Hook

SUPPORTED = ((0, 31), (0, 33))
"""First and last release, as tested: on 0.32 with a running engine, on all three against this contract."""
BEST_EFFORT = ((0, 28), (0, 30))
"""The contract fits them and engines ran with a prototype of the patch; 0.28 is the first release with
endpoint plugins and session ids."""


class Support(StrEnum):
    SUPPORTED = "supported"
    BEST_EFFORT = "best effort"
    UNTRIED = "untried"
    """Newer than the patch, or of unknown version."""
    REFUSED = "refused"


@dataclass(frozen=True, slots=True)
class Place:
    """A function, class or attribute of vLLM that the patch calls, overrides or reads."""

    file: str
    """Below the package's folder."""
    name: str
    """Dotted; of a member, the class that defines it."""
    parameters: tuple[str, ...] | None = None
    """The first ones, in this order; any others must have defaults. None: only its name counts."""
    implemented: frozenset[str] | None = None
    """Of a class that the patch derives from: the methods it implements. An abstract one beside them would
    keep ours from being made."""
    needed_for: str | None = None
    """What is lost without it; None where the patch as a whole is."""

    def hook(self, outline: Outline | None) -> Hook:
        detail = self._misfit(outline)
        is_optional = self.needed_for is not None
        if detail and self.needed_for is not None:
            detail += f"; without it: no {self.needed_for}"
        return Hook(self.name, fits=not detail, detail=detail, is_optional=is_optional)

    def _misfit(self, outline: Outline | None) -> str:
        """ "" where there is none."""
        if outline is None:
            return f"{self.file} is missing or cannot be read"
        if self.name not in outline:
            return f"not in {self.file}"
        if self.implemented is not None:
            return abstract_misfit(self.name, self.implemented, outline)
        if self.parameters is None:
            return ""
        return parameter_misfit(self.parameters, outline[self.name])


def parameter_misfit(expected: tuple[str, ...], found: Signature | None) -> str:
    if found is None:
        return f"is not a function; expected ({', '.join(expected)})"
    more = found.required.difference(expected)
    if found.parameters[: len(expected)] == expected and not more:
        return ""
    return f"takes {found} of which {sorted(found.required)} are required; expected ({', '.join(expected)})"


def abstract_misfit(owner: str, implemented: frozenset[str], outline: Outline) -> str:
    abstract = {name for name, found in outline.items() if found is not None and found.is_abstract}
    mine = {name.removeprefix(f"{owner}.") for name in abstract if name.startswith(f"{owner}.")}
    new = sorted(mine - implemented)
    return f"has abstract methods that the patch does not implement: {', '.join(new)}" if new else ""


def places(file: str, *names: str, needed_for: str | None = None) -> tuple[Place, ...]:
    return tuple(Place(file, name, needed_for=needed_for) for name in names)


SCHEDULER = "v1/core/sched/scheduler.py"
OUTPUT = "v1/core/sched/output.py"
QUEUE = "v1/core/sched/request_queue.py"
POOL = "v1/core/block_pool.py"
BLOCKS = "v1/core/kv_cache_utils.py"
KV_CACHE = "v1/core/kv_cache_manager.py"
COORDINATOR = "v1/core/kv_cache_coordinator.py"
SINGLE_TYPE = "v1/core/single_type_kv_cache_manager.py"
REQUEST = "v1/request.py"
ENGINE = "v1/engine/core.py"
CLIENT = "v1/engine/core_client.py"
ENDPOINTS = "plugins/endpoint_plugins/interface.py"
SEVERAL_RANKS = "answers of all data parallel ranks before 0.32"

TAKING_ONE = ("add_request", "prepend_request", "remove_request")
TAKING_SEVERAL = ("prepend_requests", "remove_requests")
QUEUE_METHODS = frozenset(
    {*TAKING_ONE, *TAKING_SEVERAL, "pop_request", "peek_request", "__bool__", "__len__", "__iter__"}
)

PLACES: tuple[Place, ...] = (
    # Overridden.
    Place(SCHEDULER, "Scheduler.__init__"),
    Place(SCHEDULER, "Scheduler.add_request", ("request",)),
    Place(SCHEDULER, "Scheduler.schedule", ()),
    Place(SCHEDULER, "Scheduler.update_from_output", ("scheduler_output", "model_runner_output")),
    Place(SCHEDULER, "Scheduler._preempt_request", ("request", "timestamp")),
    Place(SCHEDULER, "Scheduler._free_request", ("request",)),
    Place(SCHEDULER, "Scheduler._free_blocks", ("request",)),
    Place(SCHEDULER, "Scheduler.reset_prefix_cache", ()),
    Place(SCHEDULER, "Scheduler.shutdown", ()),
    Place("v1/core/sched/async_scheduler.py", "AsyncScheduler"),
    # Read, replaced or sorted.
    *places(SCHEDULER, "Scheduler.waiting", "Scheduler.running", "Scheduler.requests"),
    *places(SCHEDULER, "Scheduler.scheduler_config", "Scheduler.vllm_config", "Scheduler.kv_cache_manager"),
    *places(SCHEDULER, "Scheduler.block_size", "Scheduler.policy", "Scheduler.num_lookahead_tokens"),
    Place(SCHEDULER, "Scheduler.get_request_counts", ()),
    *places(OUTPUT, "SchedulerOutput.scheduled_new_reqs", "SchedulerOutput.scheduled_cached_reqs"),
    *places(OUTPUT, "SchedulerOutput.num_scheduled_tokens", "SchedulerOutput.total_num_scheduled_tokens"),
    *places(OUTPUT, "NewRequestData.req_id", "NewRequestData.num_computed_tokens"),
    *places(OUTPUT, "CachedRequestData.resumed_req_ids"),
    *places(SCHEDULER, "Scheduler.connector", needed_for="demoting to host memory"),
    *places("config/scheduler.py", "SchedulerConfig.scheduler_cls", "SchedulerConfig.async_scheduling"),
    *places("config/scheduler.py", "SchedulerConfig.policy"),
    *places(
        "config/scheduler.py",
        "SchedulerConfig.long_prefill_token_threshold",
        needed_for="shorter prefill chunks while a continuation waits",
    ),
    *places("config/vllm.py", "VllmConfig.additional_config", "VllmConfig.instance_id"),
    *places("config/parallel.py", "ParallelConfig.data_parallel_index"),
    # The waiting queue that takes the place of vLLM's.
    Place(QUEUE, "RequestQueue", implemented=QUEUE_METHODS),
    *(Place(QUEUE, f"RequestQueue.{name}", ()) for name in ("pop_request", "peek_request")),
    *(Place(QUEUE, f"RequestQueue.{name}", ("request",)) for name in TAKING_ONE),
    *(Place(QUEUE, f"RequestQueue.{name}", ("requests",)) for name in TAKING_SEVERAL),
    Place(QUEUE, "create_request_queue", ("policy",)),
    # Leases.
    Place(KV_CACHE, "KVCacheManager.allocate_slots", ("request", "num_new_tokens")),
    Place(KV_CACHE, "KVCacheManager.get_blocks", ("request_id",)),
    *places(KV_CACHE, "KVCacheManager.kv_cache_config", "KVCacheManager.max_model_len"),
    *places(KV_CACHE, "KVCacheManager.watermark_blocks", needed_for="sums that are right the first time"),
    *places(COORDINATOR, "KVCacheCoordinator.single_type_managers"),
    *places(SINGLE_TYPE, "SingleTypeKVCacheManager.req_to_blocks"),
    *places(KV_CACHE, "KVCacheManager.coordinator", "KVCacheManager.block_pool", "KVCacheBlocks.blocks"),
    Place(COORDINATOR, "KVCacheCoordinator.find_longest_cache_hit", ("block_hashes", "max_cache_hit_length")),
    Place(POOL, "BlockPool.touch", ("blocks",)),
    Place(POOL, "BlockPool.free_blocks", ("ordered_blocks",)),
    Place(POOL, "BlockPool.evict_blocks", ("block_ids",)),
    Place(POOL, "BlockPool.get_num_free_blocks", ()),
    *places(POOL, "BlockPool.num_gpu_blocks"),
    *places(POOL, "BlockPool.free_block_queue", needed_for="recycling"),
    Place(BLOCKS, "FreeKVCacheBlockQueue.prepend_n", ("blocks",), needed_for="recycling"),
    Place(BLOCKS, "FreeKVCacheBlockQueue.remove", ("block",), needed_for="recycling"),
    *places(BLOCKS, "KVCacheBlock.ref_cnt", "KVCacheBlock.block_hash"),
    *places(BLOCKS, "KVCacheBlock.is_null", "KVCacheBlock.block_id"),
    *places(BLOCKS, "KVCacheBlock.pool", needed_for="telling the blocks of several pools apart (0.30 on)"),
    Place(BLOCKS, "get_block_hash", ("key",)),
    # Requests.
    *places(REQUEST, "Request.request_id", "Request.session_id", "Request.sampling_params"),
    *places(REQUEST, "Request.block_hashes", "Request.num_tokens", "Request.num_computed_tokens"),
    *places(REQUEST, "Request.num_prompt_tokens", "Request.status", "Request.priority"),
    *places(REQUEST, "Request.arrival_time", "Request.is_prefill_chunk"),
    *places(REQUEST, "RequestStatus.FINISHED_STOPPED", "RequestStatus.FINISHED_LENGTH_CAPPED"),
    *places(REQUEST, "RequestStatus.PREEMPTED"),
    *places("sampling_params.py", "SamplingParams.extra_args"),
    # The way from an API server's process to the scheduler.
    *places(ENGINE, "EngineCore.scheduler", "EngineCoreProc._handle_client_request"),
    Place(CLIENT, "AsyncMPClient.call_utility_async", ("method",)),
    *places(CLIENT, "MPClient.core_engines", "MPClient.engine_ranks_managed", needed_for=SEVERAL_RANKS),
    *places(CLIENT, "AsyncMPClient._call_utility_async", needed_for=SEVERAL_RANKS),
    *places("plugins/__init__.py", "load_endpoint_plugins", "ENDPOINT_PLUGINS_GROUP"),
    Place(ENDPOINTS, "EndpointPlugin.attach_router", ("app",)),
    Place(ENDPOINTS, "EndpointPlugin.init_state", ("engine_client", "state", "args")),
)

VERSION_FILE = "_version.py"
FILES = tuple(sorted({f"vllm/{place.file}" for place in PLACES} | {f"vllm/{VERSION_FILE}"}))
"""All that ``check`` and ``version_of`` read, named as in a wheel."""


class NoVllm(LookupError):
    """No vLLM is installed, or none where it was looked for."""


def check(package: Path | None = None) -> tuple[Hook, ...]:
    """Compare every place with the vLLM in this folder, the installed one if not given.

    Raises:
        NoVllm: there is none.
    """
    package = package or installed_package()
    outlines = {file: try_outline(package / file) for file in {place.file for place in PLACES}}
    return tuple(place.hook(outlines[place.file]) for place in PLACES)


def missing(hooks: tuple[Hook, ...]) -> tuple[Hook, ...]:
    """Those without which the patch must step aside."""
    return tuple(hook for hook in hooks if not (hook.fits or hook.is_optional))


def installed_package() -> Path:
    """The folder of the vLLM that ``import vllm`` would find; found without importing it.

    Raises:
        NoVllm: there is none.
    """
    spec = find_spec("vllm")
    if spec is None or spec.origin is None:
        raise NoVllm("no vLLM is installed in this Python environment")
    return Path(spec.origin).parent


def installed_version() -> str | None:
    try:
        return version_of(installed_package())
    except NoVllm:
        return None


def try_outline(path: Path) -> Outline | None:
    try:
        return read_outline(path)
    except (OSError, SyntaxError):
        return None


def version_of(package: Path) -> str | None:
    """As its build wrote it down; None in a checkout that was never built."""
    try:
        lines = (package / VERSION_FILE).read_text(encoding="utf-8").splitlines()
    except OSError:
        return None
    versions = (line.rpartition("=")[2].strip(" '\"") for line in lines if line.startswith("__version__ ="))
    return next(versions, None)


def support_of(vllm_version: str | None) -> Support:
    release = release_of(vllm_version)
    if release is None or release > SUPPORTED[1]:
        return Support.UNTRIED
    if release >= SUPPORTED[0]:
        return Support.SUPPORTED
    return Support.BEST_EFFORT if release >= BEST_EFFORT[0] else Support.REFUSED


def release_of(vllm_version: str | None) -> tuple[int, int] | None:
    """Major and minor; None of what does not begin with two numbers."""
    parts = (vllm_version or "").split(".")[:2]
    return (int(parts[0]), int(parts[1])) if len(parts) == 2 and all(map(str.isdecimal, parts)) else None


def patch_version() -> str:
    """Of the distribution that holds this package; "unknown" where it runs from a folder."""
    try:
        return version("marsproxy")
    except PackageNotFoundError:
        return "unknown"

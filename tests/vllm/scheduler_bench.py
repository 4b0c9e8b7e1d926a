"""vLLM's real scheduler in this process, stock or patched, with an executor that computes nothing.

Requests, steps and the clock are the caller's; no weights, no server. One step is ``step``: schedule, then
one token for whoever has caught up.
"""

import json
from collections import deque
from collections.abc import Callable
from pathlib import Path
from typing import Any

BLOCK = 16
MODEL_LEN = 131_072
MODEL = {
    "architectures": ["Qwen2ForCausalLM"],
    "model_type": "qwen2",
    "hidden_size": 64,
    "intermediate_size": 128,
    "num_hidden_layers": 1,
    "num_attention_heads": 2,
    "num_key_value_heads": 1,
    "vocab_size": 1000,
    "max_position_embeddings": MODEL_LEN,
    "torch_dtype": "float32",
}


def token(stream: int, index: int) -> int:
    return (stream * 7919 + index * 31) % 900 + 1


def text(stream: int, tokens: int) -> list[int]:
    return [token(stream, index) for index in range(tokens)]


class SchedulerBench:
    def __init__(
        self,
        folder: Path,
        *,
        patched: bool = True,
        blocks: int = 100,
        max_batched_tokens: int = 1024,
        max_running: int = 32,
        policy: str = "fcfs",
        is_async: bool = False,
        mars: dict[str, object] | None = None,
    ) -> None:
        """``blocks`` without the null block; ``mars`` are settings of the patch."""
        import torch
        from vllm.config import CacheConfig, DeviceConfig, ModelConfig, SchedulerConfig, VllmConfig
        from vllm.utils.hashing import sha256
        from vllm.v1.core.kv_cache_utils import get_request_block_hasher, init_none_hash
        from vllm.v1.core.sched.async_scheduler import AsyncScheduler
        from vllm.v1.core.sched.scheduler import Scheduler
        from vllm.v1.kv_cache_interface import FullAttentionSpec, KVCacheConfig, KVCacheGroupSpec
        from vllm.v1.structured_output import StructuredOutputManager

        from backend_patch.vllm_scheduler import make_scheduler

        (folder / "config.json").write_text(json.dumps(MODEL))
        cache = CacheConfig(block_size=BLOCK, enable_prefix_caching=True)
        cache.num_gpu_blocks = blocks + 1
        config = VllmConfig(
            model_config=ModelConfig(
                model=str(folder), dtype="float32", skip_tokenizer_init=True, max_model_len=MODEL_LEN
            ),
            scheduler_config=SchedulerConfig(
                max_num_batched_tokens=max_batched_tokens,
                max_num_seqs=max_running,
                max_model_len=MODEL_LEN,
                enable_chunked_prefill=True,
                policy=policy,
                is_encoder_decoder=False,
                async_scheduling=is_async,
            ),
            cache_config=cache,
            device_config=DeviceConfig("cpu"),
            additional_config={"mars": {"publish": False} | (mars or {})},
        )
        config.scheduler_config.async_scheduling = is_async
        config.instance_id = f"bench-{id(self)}"
        spec = FullAttentionSpec(block_size=BLOCK, num_kv_heads=1, head_size=1, dtype=torch.float32)
        stock: Callable[..., Any] = AsyncScheduler if is_async else Scheduler
        make: Callable[..., Any] = make_scheduler if patched else stock
        self.scheduler: Any = make(
            vllm_config=config,
            kv_cache_config=KVCacheConfig(blocks + 1, [], [KVCacheGroupSpec(["layer"], spec)]),
            structured_output_manager=StructuredOutputManager(config),
            block_size=BLOCK,
        )
        init_none_hash(sha256)
        self._hasher = get_request_block_hasher(BLOCK, sha256)
        self._streams: dict[str, int] = {}
        self._cached_tokens: dict[str, int] = {}
        self.requests: dict[str, Any] = {}
        self._in_flight: deque[tuple[Any, Any]] = deque()
        self._depth = 1 if is_async else 0
        self.now_s = 1000.0
        if hasattr(getattr(self.scheduler, "mars", None), "clock"):
            self.scheduler.clock = lambda: self.now_s

    @property
    def pool(self) -> Any:
        return self.scheduler.kv_cache_manager.block_pool

    @property
    def running(self) -> list[Any]:
        return list(self.scheduler.running)

    @property
    def free_blocks(self) -> int:
        return int(self.pool.get_num_free_blocks())

    def add(
        self,
        name: str,
        stream: int,
        prompt: int,
        output: int = 1,
        *,
        priority: int = 0,
        session: str | None = None,
        prefix: list[int] | None = None,
        **xargs: object,
    ) -> Any:
        """``xargs`` are ``mars_*`` members; the prompt is ``prefix`` and then the stream's text."""
        from vllm.sampling_params import SamplingParams
        from vllm.v1.request import Request

        prefix = prefix or []
        request = Request(
            request_id=name,
            prompt_token_ids=prefix + text(stream, prompt - len(prefix)),
            sampling_params=SamplingParams(max_tokens=output, ignore_eos=True, extra_args=dict(xargs)),
            pooling_params=None,
            arrival_time=self.now_s + len(self.requests) * 1e-6,
            priority=priority,
            session_id=session,
            block_hasher=self._hasher,
        )
        self._streams[name] = stream
        self.requests[name] = request
        self.scheduler.add_request(request)
        return request

    def abort(self, name: str) -> None:
        from vllm.v1.request import RequestStatus

        self.scheduler.finish_requests(name, RequestStatus.FINISHED_ABORTED)

    def step(self, seconds: float = 0.01) -> dict[str, int]:
        """Tokens scheduled by request. With asynchronous scheduling the step before ends afterwards."""
        output = self.scheduler.schedule()
        self.now_s += seconds
        for new in output.scheduled_new_reqs:
            self._cached_tokens.setdefault(new.req_id, new.num_computed_tokens)
        self._in_flight.append((output, self.result(output)))
        while len(self._in_flight) > self._depth or (self._in_flight and not output.num_scheduled_tokens):
            self._finish_step()
        return dict(output.num_scheduled_tokens)

    def drain(self) -> None:
        """End the steps in flight."""
        while self._in_flight:
            self._finish_step()

    def _finish_step(self) -> None:
        output, result = self._in_flight.popleft()
        if result is not None:
            self.scheduler.update_from_output(output, result)

    def result(self, output: Any) -> Any:
        """What a model would make of the step; None of an empty one."""
        from vllm.v1.outputs import ModelRunnerOutput

        names = list(output.num_scheduled_tokens)
        if not names:
            return None
        tokens = [self._sampled(name) for name in names]
        index = {name: place for place, name in enumerate(names)}
        return ModelRunnerOutput(req_ids=names, req_id_to_index=index, sampled_token_ids=tokens)

    def run(self, max_steps: int = 1000) -> None:
        """Until nothing is left to do."""
        for _ in range(max_steps):
            if not self.scheduler.requests:
                self.drain()
                return
            self.step()
        self.drain()
        raise AssertionError(f"still busy after {max_steps} steps: {list(self.scheduler.requests)}")

    def cached_tokens(self, name: str) -> int:
        """Found in the cache when the request was first scheduled."""
        return self._cached_tokens[name]

    def _sampled(self, name: str) -> list[int]:
        request = self.requests[name]
        place = request.num_tokens + max(0, request.num_output_placeholders - 1)
        return [] if request.is_prefill_chunk else [token(self._streams[name], place)]

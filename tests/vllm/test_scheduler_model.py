"""The engine's scheduler against vLLM's own, step by step, on the same random workloads.

Both get the same arrivals, aborts and tokens. In every step both must schedule the same requests with the
same number of tokens and have the same number of free blocks left, and requests must end in the same step.
Runs in the environment that has vLLM; no weights, no accelerator, no server.
"""

import json
import random
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pytest

from loadgen.engine.requests import EngineRequest
from loadgen.engine.scheduler import Scheduler, SchedulerLimits

# Warnings of vLLM and torch are not ours to turn into errors.
pytestmark = [pytest.mark.vllm, pytest.mark.filterwarnings("default")]

BLOCK = 16
MODEL_LEN = 4096
STEPS = 600
ARRIVALS_UNTIL = 250
STREAMS = 7
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


@dataclass(frozen=True)
class Arrival:
    number: int
    stream: int
    prompt: int
    output: int
    priority: int

    @property
    def name(self) -> str:
        return f"r{self.number}"


class Real:
    """vLLM's scheduler with an executor that computes nothing."""

    def __init__(self, limits: SchedulerLimits, model_dir: Path) -> None:
        import torch
        from vllm.config import CacheConfig, DeviceConfig, ModelConfig, SchedulerConfig, VllmConfig
        from vllm.utils.hashing import sha256
        from vllm.v1.core.kv_cache_utils import get_request_block_hasher, init_none_hash
        from vllm.v1.core.sched.scheduler import Scheduler as VllmScheduler
        from vllm.v1.kv_cache_interface import FullAttentionSpec, KVCacheConfig, KVCacheGroupSpec
        from vllm.v1.structured_output import StructuredOutputManager

        blocks = limits.kv_blocks + 1  # vLLM keeps one as its null block
        cache = CacheConfig(block_size=BLOCK, enable_prefix_caching=True)
        cache.num_gpu_blocks = blocks
        config = VllmConfig(
            model_config=ModelConfig(
                model=str(model_dir), dtype="float32", skip_tokenizer_init=True, max_model_len=MODEL_LEN
            ),
            scheduler_config=SchedulerConfig(
                max_num_batched_tokens=limits.max_batched_tokens,
                max_num_seqs=limits.max_running,
                max_model_len=MODEL_LEN,
                enable_chunked_prefill=True,
                policy=limits.policy,
                is_encoder_decoder=False,
                async_scheduling=False,
            ),
            cache_config=cache,
            device_config=DeviceConfig("cpu"),
        )
        spec = FullAttentionSpec(block_size=BLOCK, num_kv_heads=1, head_size=1, dtype=torch.float32)
        self._scheduler = VllmScheduler(
            vllm_config=config,
            kv_cache_config=KVCacheConfig(blocks, [], [KVCacheGroupSpec(["layer"], spec)]),
            structured_output_manager=StructuredOutputManager(config),
            block_size=BLOCK,
        )
        init_none_hash(sha256)
        self._hasher = get_request_block_hasher(BLOCK, sha256)
        self._requests: dict[str, tuple[Any, int]] = {}

    @property
    def free_blocks(self) -> int:
        return int(self._scheduler.kv_cache_manager.block_pool.get_num_free_blocks())

    def add(self, arrival: Arrival) -> None:
        from vllm.sampling_params import SamplingParams
        from vllm.v1.request import Request

        request = Request(
            request_id=arrival.name,
            prompt_token_ids=[token(arrival.stream, index) for index in range(arrival.prompt)],
            sampling_params=SamplingParams(max_tokens=arrival.output, ignore_eos=True),
            pooling_params=None,
            arrival_time=float(arrival.number),
            priority=arrival.priority,
            block_hasher=self._hasher,
        )
        self._scheduler.add_request(request)
        self._requests[arrival.name] = request, arrival.stream

    def abort(self, name: str) -> None:
        from vllm.v1.request import RequestStatus

        self._scheduler.finish_requests(name, RequestStatus.FINISHED_ABORTED)

    def schedule(self) -> dict[str, int]:
        self._output = self._scheduler.schedule()
        return dict(self._output.num_scheduled_tokens)

    def complete(self) -> None:
        from vllm.v1.outputs import ModelRunnerOutput

        names = list(self._output.num_scheduled_tokens)
        tokens = [self._sampled(*self._requests[name]) for name in names]
        index = {name: position for position, name in enumerate(names)}
        answer = ModelRunnerOutput(req_ids=names, req_id_to_index=index, sampled_token_ids=tokens)
        if names:
            self._scheduler.update_from_output(self._output, answer)

    def finished(self) -> set[str]:
        return {name for name, (request, _stream) in self._requests.items() if request.is_finished()}

    def _sampled(self, request: Any, stream: int) -> list[int]:
        """A token of the stream for whoever has caught up: prompts chunked further get none."""
        caught_up = request.num_computed_tokens >= request.num_tokens
        return [token(stream, request.num_tokens)] if caught_up else []


class Model:
    """Ours, through the same four calls."""

    def __init__(self, limits: SchedulerLimits) -> None:
        self.scheduler = Scheduler(limits)
        self._requests: dict[str, EngineRequest] = {}

    def add(self, arrival: Arrival) -> None:
        blocks = (arrival.prompt + arrival.output) // BLOCK
        request = EngineRequest(
            arrival.name,
            arrival.prompt,
            arrival.output,
            [hash((arrival.stream, index)) for index in range(blocks)],
            priority=arrival.priority,
            arrival_s=float(arrival.number),
        )
        self._requests[arrival.name] = request
        self.scheduler.add(request)

    def abort(self, name: str) -> None:
        self.scheduler.abort(self._requests[name])

    def schedule(self) -> dict[str, int]:
        self._batch = self.scheduler.schedule(0.0)
        return {request.request_id: new for request, new in self._batch.scheduled.items()}

    def complete(self) -> None:
        self.scheduler.complete(self._batch, 0.0)

    def finished(self) -> set[str]:
        return {name for name, request in self._requests.items() if request.is_over}


class Workload:
    """Sessions whose contexts grow until they are dropped, some of them shared, with random limits."""

    def __init__(self, seed: int) -> None:
        self.rng = random.Random(seed)
        self.limits = SchedulerLimits(
            kv_blocks=self.rng.randint(40, 120),
            block_tokens=BLOCK,
            max_batched_tokens=self.rng.choice([64, 256, 1024]),
            max_running=self.rng.choice([3, 8, 32]),
            policy="fcfs" if seed % 2 else "priority",
        )
        self._contexts = dict.fromkeys(range(STREAMS), 0)
        self._arrived = 0

    def arrivals(self) -> list[Arrival]:
        return [self._arrival() for _ in range(self.rng.choice([0, 0, 0, 1, 2, 3]))]

    def _arrival(self) -> Arrival:
        pool_tokens = (self.limits.kv_blocks - 1) * BLOCK
        stream = self.rng.randrange(STREAMS)
        output = self.rng.randint(1, self.rng.choice([10, 30, 90]))
        prompt = self.rng.randint(1, min(400, pool_tokens * 2 // 3))
        if self._contexts[stream] and self.rng.random() < 0.6:
            prompt = self._contexts[stream] + self.rng.randint(1, 60)
        prompt = max(1, min(prompt, pool_tokens - output))
        context = prompt + output
        self._contexts[stream] = context if context < pool_tokens * 2 // 3 else 0
        self._arrived += 1
        return Arrival(self._arrived, stream, prompt, output, self.rng.randint(-2, 2))


@pytest.mark.parametrize("seed", range(8))
def test_every_step_is_vllms(seed: int, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("HF_HUB_OFFLINE", "1")
    (tmp_path / "config.json").write_text(json.dumps(MODEL))
    workload = Workload(seed)
    real, model = Real(workload.limits, tmp_path), Model(workload.limits)
    names: list[str] = []
    for step in range(STEPS):
        for arrival in workload.arrivals() if step < ARRIVALS_UNTIL else []:
            real.add(arrival)
            model.add(arrival)
            names.append(arrival.name)
        if names and workload.rng.random() < 0.02:
            gone = workload.rng.choice(names)
            real.abort(gone)
            model.abort(gone)
        assert model.schedule() == real.schedule(), f"step {step}"
        assert model.scheduler.pool.free_blocks == real.free_blocks, f"step {step}"
        model.complete()
        real.complete()
        assert model.finished() == real.finished(), f"step {step}"
    totals = model.scheduler.totals
    assert totals.prefix_cache_hits > 0, totals
    assert totals.finished > 50

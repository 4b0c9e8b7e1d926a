"""The executor that computes nothing: answers at the time at which an accelerator would have.

Everything above it is the real engine. It gets what the scheduler planned for a step, asks the step-time
model how long that takes, and gives back a future that completes then, with tokens of the sampler's. With
asynchronous scheduling the engine hands over the next step while one is running; ``Device`` queues it.

    --distributed-executor-backend backend_patch.emulator.vllm_executor.EmulatedExecutor

vLLM 0.28 to 0.33: what differs between them is asked for by name and answered if known.
"""

import os
import time
from collections.abc import Callable
from concurrent.futures import Future
from pathlib import Path
from typing import Any

import msgspec
import numpy as np
import torch
from vllm.logger import init_logger
from vllm.platforms import current_platform
from vllm.tokenizers import cached_tokenizer_from_config
from vllm.v1.executor.abstract import Executor
from vllm.v1.kv_cache_interface import FullAttentionSpec
from vllm.v1.outputs import EMPTY_MODEL_RUNNER_OUTPUT, LogprobsLists, ModelRunnerOutput
from vllm.v1.worker.worker_base import CompilationTimes

from backend_patch.emulator.device import Device, DeviceReport
from backend_patch.emulator.failures import FailureSource
from backend_patch.emulator.grammar import GrammarChoice
from backend_patch.emulator.sampler import OutputPlan, Planner
from backend_patch.emulator.settings import EmulatorSettings
from backend_patch.emulator.vllm_emulated_platform import EmulatedPlatform, refuse_what_is_not_emulated
from backend_patch.emulator.vllm_host_tier import HostTier

logger = init_logger(f"vllm.{__name__}")

REPORT_EVERY_S = 0.5
FREEZE_POLL_S = 0.1
KV_DTYPES = {1: torch.uint8, 2: torch.bfloat16, 4: torch.float32}
"""By bytes per value."""


class StepResult(Future[Any]):
    """Of one step: ``result`` returns when the device is done with it."""

    def __init__(self, output: Any, wait: Callable[[], None]) -> None:
        super().__init__()
        self._output = output
        self._wait = wait

    def result(self, timeout: float | None = None) -> Any:
        if not self.done():
            self._wait()
            self.set_result(self._output)
        return super().result(timeout)


class RunningRequest:
    """What the executor remembers of a request between steps."""

    __slots__ = ("logprobs", "plan", "prompt_tokens")

    def __init__(self, prompt_tokens: int, plan: OutputPlan, logprobs: int | None) -> None:
        self.prompt_tokens = prompt_tokens
        self.plan = plan
        self.logprobs = logprobs


class Step:
    """One step between ``execute_model`` and ``sample_tokens``: who is in it, and whose token it makes."""

    __slots__ = ("ends_s", "kv_output", "names", "numbers", "requests")

    def __init__(self) -> None:
        self.names: list[str] = []
        self.requests: list[RunningRequest] = []
        self.numbers: list[int] = []
        """Of the token that each makes, from 0; -1 for a prompt that is not through."""
        self.ends_s = 0.0
        self.kv_output: Any = None


class EmulatedExecutor(Executor):  # type: ignore[misc]
    supports_pp = False

    @classmethod
    def supports_async_scheduling(cls) -> bool:
        return True

    def _init_executor(self) -> None:
        refuse_a_wrong_platform()
        refuse_what_is_not_emulated(self.vllm_config)
        self.settings = EmulatorSettings.from_additional_config(self.vllm_config.additional_config or {})
        self._step_time = self.settings.step_time()
        self._device = Device(speed=self.settings.speed)
        self._state_dir = Path(self.settings.state_dir) if self.settings.state_dir else None
        self._failures = FailureSource(self.settings.failures, self._state_dir)
        tokenizer = cached_tokenizer_from_config(self.model_config)
        vocabulary = min(len(tokenizer), self.model_config.get_vocab_size())
        self._planner = Planner(tokenizer, vocabulary, tokenizer.eos_token_id, self.settings.seed)
        self._grammar = GrammarChoice(tokenizer)
        self._host_tier = HostTier(self.settings, self._step_time, self.cache_config.block_size)
        self._requests: dict[str, RunningRequest] = {}
        self._last_names: frozenset[str] | set[str] = frozenset()
        self._step: Step | None = None
        self._report_due_s = 0.0
        self._cpu_s = 0.0

    # What the engine asks its workers at the start, and now and then.

    def check_health(self) -> None:
        return

    def shutdown(self) -> None:
        if hasattr(self, "_device") and self._device.steps:
            report = self.report()
            logger.info("Emulated device: %s", msgspec.json.encode(report).decode())
            self._write_report(report)

    def collective_rpc(
        self,
        method: str | Callable[..., Any],
        timeout: float | None = None,
        args: tuple[Any, ...] = (),
        kwargs: dict[str, Any] | None = None,
        non_block: bool = False,
    ) -> Any:
        """One worker's answers; None to what it does not know, as there is nothing to be done."""
        name = method if isinstance(method, str) else ""
        answers: dict[str, Callable[[], Any]] = {
            "get_kv_cache_spec": self._kv_cache_spec,
            "get_supported_kv_cache_layouts": _kv_cache_layouts,
            "determine_available_memory": self._pool_bytes,
            "compile_or_warm_up_model": lambda: CompilationTimes(0.0, 0.0),
            "get_supported_tasks": lambda: ("generate",),
            "supports_draft_weight_updates": lambda: False,
            "list_loras": set,
        }
        answer = [answers[name]() if name in answers else None]
        return _completed(answer) if non_block else answer

    def _kv_cache_spec(self) -> dict[str, FullAttentionSpec]:
        model = self._step_time.model
        spec = FullAttentionSpec(
            block_size=self.cache_config.block_size,
            num_kv_heads=model.kv_heads,
            head_size=model.head_dim,
            dtype=KV_DTYPES[model.kv_bytes_per_value],
        )
        return {f"model.layers.{layer}.self_attn.attn": spec for layer in range(model.layers)}

    def _pool_bytes(self) -> int:
        """For the pool's blocks, and the one that vLLM takes for its null block."""
        block_tokens: int = self.cache_config.block_size
        blocks = self.settings.pool_tokens() // block_tokens + 1
        return blocks * block_tokens * self._step_time.model.kv_bytes_per_token

    # The steps.

    def execute_model(self, scheduler_output: Any, non_block: bool = False) -> Any:
        cpu_s = time.thread_time()
        now = time.monotonic()
        for name in scheduler_output.finished_req_ids:
            self._requests.pop(name, None)
        waits_until_s = self._host_tier.take_orders(scheduler_output.kv_connector_metadata, now)
        if not scheduler_output.num_scheduled_tokens:
            return self._empty_step(now, non_block)
        step, items = self._read(scheduler_output)
        self._start(step, items, scheduler_output, max(now, waits_until_s))
        self._step = step
        self._cpu_s += time.thread_time() - cpu_s
        return _completed(None) if non_block else None

    def sample_tokens(self, grammar_output: Any, non_block: bool = False) -> Any:
        cpu_s = time.thread_time()
        step, self._step = self._step, None
        assert step is not None, "sample_tokens without execute_model"
        output = self._output(step, grammar_output)
        result = StepResult(output, lambda: self._wait_for(step, output))
        self._cpu_s += time.thread_time() - cpu_s
        return result if non_block else result.result()

    def _empty_step(self, now: float, non_block: bool) -> Any:
        self._last_names = frozenset()
        output = ModelRunnerOutput.with_kv_conn_output_only(self._host_tier.completed(now))
        if self._state_dir is not None:
            self._write_report(self.report())
        output = EMPTY_MODEL_RUNNER_OUTPUT if output is None else output
        return _completed(output) if non_block else output

    def _read(self, scheduled: Any) -> tuple[Step, list[tuple[int, int]]]:
        """Who makes which token, and the work as ``(tokens before, new tokens)`` of each."""
        step, items = Step(), []
        new_tokens = scheduled.num_scheduled_tokens
        for new in scheduled.scheduled_new_reqs:
            request = self._requests.get(new.req_id) or self._admit(new)
            known = len(getattr(new, "prefill_token_ids", None) or new.prompt_token_ids)
            count = new_tokens[new.req_id]
            items.append((new.num_computed_tokens, count))
            _add(step, new.req_id, request, new.num_computed_tokens + count, known)
        cached = scheduled.scheduled_cached_reqs
        rows = zip(cached.req_ids, cached.num_computed_tokens, cached.num_output_tokens, strict=True)
        for name, computed, outputs in rows:
            request = self._requests[name]
            count = new_tokens[name]
            items.append((computed, count))
            _add(step, name, request, computed + count, request.prompt_tokens + outputs)
        return step, items

    def _admit(self, new: Any) -> RunningRequest:
        params = new.sampling_params
        plan = self._planner.plan(
            new.prompt_token_ids,
            params.extra_args or {},
            min_tokens=params.min_tokens,
            ignore_eos=params.ignore_eos,
            seed=params.seed,
        )
        request = RunningRequest(len(new.prompt_token_ids), plan, params.logprobs)
        self._requests[new.req_id] = request
        return request

    def _start(self, step: Step, items: list[tuple[int, int]], scheduled: Any, now: float) -> None:
        failures = self._failures.current()
        if failures.is_crash(self._device.steps):
            raise RuntimeError("emulated device fault: crash_after_steps")
        names = set(step.names)
        step.ends_s = self._device.run(
            now,
            self._step_time.seconds(items),
            scheduled.total_num_scheduled_tokens,
            is_continued=not self._last_names.isdisjoint(names),
            extra_s=failures.extra_seconds(self._device.steps + 1),
        )
        self._last_names = names
        self._host_tier.start_stores(scheduled.kv_connector_metadata, step.ends_s)

    def _output(self, step: Step, grammar_output: Any) -> ModelRunnerOutput:
        tokens = [
            [] if number < 0 else [request.plan.token(number)]
            for request, number in zip(step.requests, step.numbers, strict=True)
        ]
        index = {name: position for position, name in enumerate(step.names)}
        if grammar_output is not None:
            self._follow_grammar(step, index, grammar_output, tokens)
        return ModelRunnerOutput(
            req_ids=step.names,
            req_id_to_index=index,
            sampled_token_ids=tokens,
            logprobs=_logprobs(step, tokens),
        )

    def _follow_grammar(
        self, step: Step, index: dict[str, int], grammar: Any, tokens: list[list[int]]
    ) -> None:
        for name, row in zip(grammar.structured_output_request_ids, grammar.grammar_bitmask, strict=False):
            position = index[name]
            if tokens[position]:
                plan, number = step.requests[position].plan, step.numbers[position]
                tokens[position] = [self._grammar.choose(row, plan, number)]

    def _wait_for(self, step: Step, output: ModelRunnerOutput) -> None:
        while (remaining_s := step.ends_s - time.monotonic()) > 0:
            time.sleep(remaining_s)
        while self._failures.current().is_frozen(self._device.steps):
            time.sleep(FREEZE_POLL_S)
            self._device.skip_to(time.monotonic())
        now = time.monotonic()
        output.kv_connector_output = self._host_tier.completed(now)
        if self._state_dir is not None and now >= self._report_due_s:
            self._write_report(self.report())

    # What is told about it.

    def report(self) -> DeviceReport:
        device = self._device
        return DeviceReport(
            steps=device.steps,
            tokens=device.tokens,
            busy_s=device.busy_s,
            late_steps=device.late_steps,
            late_s=device.late_s,
            behind_s=device.behind_s,
            loaded_tokens=self._host_tier.loaded_tokens,
            stored_tokens=self._host_tier.stored_tokens,
            engine_cpu_s=time.process_time(),
            executor_cpu_s=self._cpu_s,
            async_scheduling=bool(self.scheduler_config.async_scheduling),
            num_gpu_blocks=self.cache_config.num_gpu_blocks or 0,
        )

    def _write_report(self, report: DeviceReport) -> None:
        if self._state_dir is None:
            return
        self._report_due_s = time.monotonic() + REPORT_EVERY_S
        path = self._state_dir / f"device-{self.parallel_config.data_parallel_rank}.json"
        scratch = path.with_suffix(".new")
        scratch.write_bytes(msgspec.json.encode(report))
        scratch.replace(path)


def refuse_a_wrong_platform() -> None:
    """On the CPU platform the engine would schedule synchronously, and nobody would notice."""
    if isinstance(current_platform, EmulatedPlatform):
        return
    target = os.environ.get("VLLM_TARGET_DEVICE")
    because = f"VLLM_TARGET_DEVICE is {target!r}: unset it" if target else (
        "set MARS_EMULATOR=1, name mars_emulator in VLLM_PLUGINS, and install this package"
    )  # fmt: skip
    raise RuntimeError(f"the emulated accelerator needs its platform plugin: {because}")


def _add(step: Step, name: str, request: RunningRequest, reached: int, known: int) -> None:
    step.names.append(name)
    step.requests.append(request)
    step.numbers.append(reached - request.prompt_tokens if reached >= known else -1)


def _completed(value: Any) -> Future[Any]:
    future: Future[Any] = Future()
    future.set_result(value)
    return future


def _kv_cache_layouts() -> list[str]:
    from vllm.v1.kv_cache_layout import KVCacheLayout  # since 0.29, which is where this is asked

    return [next(iter(KVCacheLayout)).name]


def _logprobs(step: Step, tokens: list[list[int]]) -> LogprobsLists | None:
    """Made up, but of the right form: the token taken is by far the likeliest, filler words follow."""
    most = max((request.logprobs for request in step.requests if request.logprobs is not None), default=None)
    if most is None:
        return None
    ids = np.zeros((len(tokens), most + 1), dtype=np.int32)
    for row, (request, sampled) in enumerate(zip(step.requests, tokens, strict=True)):
        words = request.plan.words.words
        ids[row] = [*(sampled or [0]), *(words[i % len(words)] for i in range(most))]
    logprobs = np.broadcast_to(-0.01 - 5.0 * np.arange(most + 1, dtype=np.float32), ids.shape)
    return LogprobsLists(ids, logprobs.copy(), np.ones(len(tokens), dtype=np.int32))

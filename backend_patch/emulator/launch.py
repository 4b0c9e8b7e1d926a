"""What an emulated vLLM is started with: options of ours, and the command line and environment they make.

Starts nothing, and imports no vLLM.
"""

import json
import sys
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, Literal

from backend_patch.emulator.failures import Failures
from backend_patch.emulator.scripted import SCRIPT_VARIABLE
from backend_patch.emulator.settings import BLOCK_TOKENS, EmulatorSettings
from backend_patch.step_time import HOST_BYTES_PER_S

EXECUTOR = "backend_patch.emulator.vllm_executor.EmulatedExecutor"
SCHEDULER = "backend_patch.vllm_scheduler.make_scheduler"
SCRIPTED_ANSWERS = "backend_patch.emulator.scripted.ScriptedAnswers"
ADDITIONAL_CONFIG = "--additional-config"


class LaunchError(ValueError):
    """The options contradict each other or the machine; the message names them."""


@dataclass(frozen=True, slots=True)
class LaunchOptions:
    host: str = "127.0.0.1"
    """Address to listen on."""
    port: int = 8000
    """0 takes a free one; the ready line says which."""
    hardware: str = "h100"
    """Accelerator to imitate: h100, h200, a100 or cpu, or a profile's file."""
    model: str = "qwen3-30b-a3b"
    """Model to imitate: qwen3-30b-a3b, llama-3.1-8b or tiny."""
    speed: float = 1.0
    """Modelled seconds per second of the clock. What this machine can keep up with: see the report."""
    kv_tokens: int | None = None
    """Size of the KV cache in tokens. Default: what fits beside the weights on the hardware."""
    host_kv_tokens: int | None = None
    """Size of a tier in the host's memory that evicted blocks are loaded back from. Default: none."""
    host_bytes_per_s: float = HOST_BYTES_PER_S
    """Between the two."""
    scheduling_policy: Literal["fcfs", "priority"] = "fcfs"
    """First come, first served, or by the priority of the request."""
    patch: bool = False
    """With the agent-centric scheduler and its routes; without, the stock scheduler."""
    script: Path | None = None
    """JSON Lines of answers to give."""
    max_num_seqs: int = 256
    """Requests per step."""
    max_num_batched_tokens: int = 8192
    """Tokens per step."""
    max_model_len: int | None = None
    """Longest prompt and answer together. Default: the model folder's, or the KV cache if smaller."""
    stream_interval: int = 1
    """Tokens per streamed chunk after the first."""
    served_model_name: str | None = None
    """What /v1/models and requests call the model. Default: the imitated model's name on Hugging Face."""
    api_server_count: int = 1
    """Processes that take requests."""
    seed: int = 0
    """Of generated words and lengths."""
    failures: Failures = field(default_factory=Failures)

    def settings(self, state_dir: Path) -> EmulatorSettings:
        return EmulatorSettings(
            hardware=self.hardware,
            model=self.model,
            kv_tokens=self.kv_tokens,
            speed=self.speed,
            seed=self.seed,
            host_bytes_per_s=self.host_bytes_per_s,
            state_dir=str(state_dir),
            failures=self.failures,
        )


def command(
    model_dir: Path, options: LaunchOptions, *, port: int, state_dir: Path, extra: Sequence[str] = ()
) -> list[str]:
    """Raises:
    LaunchError: an option names what there is not.
    """
    try:
        settings = options.settings(state_dir)
        step_time, pool_tokens = settings.step_time(), settings.pool_tokens()
    except ValueError as exc:
        raise LaunchError(str(exc)) from exc
    extra, additional = _without_additional_config(extra)
    limit = options.max_model_len or min(_context_tokens(model_dir), pool_tokens)
    if limit > pool_tokens:
        raise LaunchError(f"max_model_len ({limit}) is more than the KV cache holds ({pool_tokens} tokens)")
    flags = [
        *("--host", options.host, "--port", str(port)),
        *("--served-model-name", options.served_model_name or step_time.model.served_name),
        *("--distributed-executor-backend", EXECUTOR, "--load-format", "dummy", "--enforce-eager"),
        *("--block-size", str(BLOCK_TOKENS), "--max-model-len", str(limit)),
        *("--max-num-seqs", str(options.max_num_seqs)),
        *("--max-num-batched-tokens", str(options.max_num_batched_tokens)),
        *("--scheduling-policy", options.scheduling_policy),
        *("--stream-interval", str(options.stream_interval)),
        *("--enable-prefix-caching", "--enable-prompt-tokens-details"),
        *("--enable-auto-tool-choice", "--tool-call-parser", "hermes"),
        *("--middleware", SCRIPTED_ANSWERS),
        *(ADDITIONAL_CONFIG, json.dumps(settings.as_additional_config() | additional)),
    ]
    if options.patch:
        flags += ["--scheduler-cls", SCHEDULER]
    if options.host_kv_tokens is not None:
        gib = options.host_kv_tokens * step_time.model.kv_bytes_per_token / 2**30
        flags += ["--kv-offloading-size", repr(gib)]
    if options.api_server_count > 1:
        flags += ["--api-server-count", str(options.api_server_count)]
    return [sys.executable, "-m", "backend_patch.emulator.vllm_serve", str(model_dir), *flags, *extra]


def environment(inherited: Mapping[str, str], options: LaunchOptions) -> dict[str, str]:
    """Raises:
    LaunchError: a variable would switch the emulation off.
    """
    if target := inherited.get("VLLM_TARGET_DEVICE"):
        raise LaunchError(
            f"VLLM_TARGET_DEVICE is set ({target!r}): vLLM then takes its own platform, which schedules "
            "synchronously; unset it"
        )
    added = {
        "MARS_EMULATOR": "1",
        "VLLM_PLUGINS": "mars,mars_emulator" if options.patch else "mars_emulator",
        "HF_HUB_OFFLINE": "1",
        "VLLM_NO_USAGE_STATS": "1",
        "CUDA_VISIBLE_DEVICES": "",
        # Block hashes begin with a random value otherwise, and two runs differ.
        "PYTHONHASHSEED": inherited.get("PYTHONHASHSEED", "0"),
        # Nothing is computed; threads of torch would only wait for the cores.
        "OMP_NUM_THREADS": "1",
    }
    if options.script is not None:
        added[SCRIPT_VARIABLE] = str(options.script.resolve())
    return {**inherited, **added}


def _context_tokens(model_dir: Path) -> int:
    try:
        config = json.loads((model_dir / "config.json").read_text(encoding="utf-8"))
        return int(config["max_position_embeddings"])
    except OSError as exc:
        raise LaunchError(f"no model in {model_dir}: config.json: {exc.strerror}") from exc
    except (KeyError, ValueError, TypeError) as exc:
        raise LaunchError(f"config.json in {model_dir} has no max_position_embeddings") from exc


def _without_additional_config(extra: Sequence[str]) -> tuple[list[str], dict[str, Any]]:
    """vLLM would take the last one of two; here they are put together."""
    rest, additional = list(extra), {}
    if ADDITIONAL_CONFIG in rest:
        at = rest.index(ADDITIONAL_CONFIG)
        try:
            additional = dict(json.loads(rest[at + 1]))
        except (IndexError, ValueError, TypeError) as exc:
            raise LaunchError(f"{ADDITIONAL_CONFIG} must be followed by a JSON object") from exc
        del rest[at : at + 2]
    return rest, additional

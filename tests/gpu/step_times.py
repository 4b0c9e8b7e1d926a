"""Times of single steps on a GPU, and the roofline that explains them: a profile for ``hardware.toml``.

    python tests/gpu/step_times.py --hardware h200 --model qwen3-30b-a3b [--out FILE]

Runs a decoder of the model profile's shape in plain PyTorch with random 16-bit weights: no tokenizer, no
engine, no kernels of an engine's own. Prefill steps (a chunk of a prompt on some context) run as they
come, decode steps (one token for each of several requests) from a CUDA graph, as engines run them. The
medians are fitted by ``loadgen.calibration``; printed are a table for ``profiles/hardware.toml``, with its
provenance, and each step beside what the table predicts for it.

The step overhead that comes out is that of a graph's launch; what an engine adds on top (scheduling,
sampling) has to be measured on that engine: ``loadgen calibrate``.

Without a GPU nothing is measured: that is said, and the exit status is 77. ``--device cpu`` is for trying
out the script itself.
"""

import argparse
import itertools
import json
import statistics
import sys
import time
from collections.abc import Callable, Iterator
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

from backend_patch.step_time import HardwareProfile, ModelProfile, StepTime
from loadgen.calibration.command import hardware_table
from loadgen.calibration.fit import Fit, StepSample, fit_steps

SKIPPED = 77
"""What automake, meson and others take for "this could not be tried here"."""


@dataclass(frozen=True)
class Shape:
    """What a model profile leaves out; from the same ``config.json``."""

    hidden: int
    ffn: int
    """Of the dense block, or of each expert."""
    vocabulary: int


SHAPES = {
    "qwen3-30b-a3b": Shape(hidden=2048, ffn=768, vocabulary=151_936),
    "llama-3.1-8b": Shape(hidden=4096, ffn=14_336, vocabulary=128_256),
    "tiny": Shape(hidden=896, ffn=4_864, vocabulary=151_936),
}

PREFILLS = [
    (context, new) for context in (0, 8_192, 32_768, 65_536) for new in (256, 1_024, 2_048, 4_096, 8_192)
]
"""``(context, new tokens)`` of one request."""
DECODES = [
    (requests, context)
    for requests in (1, 4, 16, 64)
    for context in (1_024, 8_192, 32_768)
    if requests * context <= 1 << 20
]
"""Requests of equal context, one new token each."""


class Decoder:
    """Layers of the profile's shape; each has weights of its own, so none stays in a cache."""

    def __init__(self, torch: Any, model: ModelProfile, layers: int, device: str) -> None:
        self.torch, self.model, self.device, self.layers = torch, model, device, layers
        self.shape = SHAPES[model.name]
        hidden, ffn = self.shape.hidden, self.shape.ffn
        heads_width = model.attention_heads * model.head_dim
        kv_width = model.kv_heads * model.head_dim
        experts = model.experts or 1
        self.weights = [
            {
                "qkv": self._random(hidden, heads_width + 2 * kv_width),
                "out": self._random(heads_width, hidden),
                "up": self._random(experts, hidden, 2 * ffn),
                "down": self._random(experts, ffn, hidden),
                "router": self._random(hidden, experts),
            }
            for _ in range(layers)
        ]
        self.head = self._random(hidden, self.shape.vocabulary)

    def _random(self, *size: int) -> Any:
        made = self.torch.empty(*size, dtype=self.torch.bfloat16, device=self.device)
        return made.normal_(0, 0.02)

    def step(self, hidden: Any, keys: list[Any], values: list[Any]) -> Any:
        """``hidden`` is requests x new tokens x width; keys and values hold what came before, one tensor
        for each layer: requests x kv_heads x (context + new) x head_dim, the new ones at the end."""
        for weights, key, value in zip(self.weights, keys, values, strict=True):
            hidden = hidden + self._attention(hidden, weights, key, value)
            hidden = hidden + self._ffn(hidden, weights)
        return (hidden[:, -1] @ self.head).argmax(-1)

    def _attention(self, hidden: Any, weights: dict[str, Any], key: Any, value: Any) -> Any:
        model, (requests, new, _) = self.model, hidden.shape
        widths = [size * model.head_dim for size in (model.attention_heads, model.kv_heads, model.kv_heads)]
        query, new_key, new_value = (hidden @ weights["qkv"]).split(widths, dim=-1)
        key[:, :, -new:] = self._heads(new_key)
        value[:, :, -new:] = self._heads(new_value)
        attend = self.torch.nn.functional.scaled_dot_product_attention
        mask = None
        if new > 1:
            from torch.nn.attention.bias import causal_lower_right

            mask = causal_lower_right(new, key.shape[2])
        out = attend(self._heads(query), key, value, attn_mask=mask, enable_gqa=True)
        return out.transpose(1, 2).reshape(requests, new, -1) @ weights["out"]

    def _heads(self, flat: Any) -> Any:
        requests, new, _ = flat.shape
        return flat.reshape(requests, new, -1, self.model.head_dim).transpose(1, 2)

    def _ffn(self, hidden: Any, weights: dict[str, Any]) -> Any:
        flat = hidden.reshape(-1, hidden.shape[-1])
        if not self.model.experts:
            return (self._gated(flat @ weights["up"][0]) @ weights["down"][0]).reshape(hidden.shape)
        torch, chosen = self.torch, self.model.experts_per_token
        # Round robin: every expert gets its share, as a balanced router would have it, and shapes are
        # known to a graph. The router's own multiplication is done all the same.
        scores = (flat @ weights["router"]).topk(chosen, dim=-1).values.softmax(-1)
        experts = torch.arange(len(flat) * chosen, device=self.device) % self.model.experts
        order = experts.argsort()
        ends = experts.bincount(minlength=self.model.experts).cumsum(0).to(torch.int32)
        rows = flat.repeat_interleave(chosen, 0)[order]
        out = self._grouped(self._gated(self._grouped(rows, weights["up"], ends)), weights["down"], ends)
        back = torch.empty_like(out)
        back[order] = out
        return (back.reshape(len(flat), chosen, -1) * scores.unsqueeze(-1)).sum(1).reshape(hidden.shape)

    def _gated(self, both: Any) -> Any:
        gate, up = both.chunk(2, dim=-1)
        return self.torch.nn.functional.silu(gate) * up

    def _grouped(self, rows: Any, weights: Any, ends: Any) -> Any:
        """Each run of rows times the weights of its expert."""
        if self.device != "cpu":
            return self.torch._grouped_mm(rows, weights, offs=ends)
        starts = [0, *ends.tolist()]
        parts = [
            rows[start:end] @ weights[index] for index, (start, end) in enumerate(itertools.pairwise(starts))
        ]
        return self.torch.cat(parts)

    def cache(self, requests: int, tokens: int) -> list[Any]:
        size = (requests, self.model.kv_heads, tokens, self.model.head_dim)
        return [self._random(*size) for _ in range(self.layers)]

    def input(self, requests: int, new: int) -> Any:
        return self._random(requests, new, self.shape.hidden)


def prefill_sample(decoder: Decoder, context: int, new: int, repeats: int) -> StepSample:
    keys, values = (decoder.cache(1, context + new) for _ in range(2))
    hidden = decoder.input(1, new)
    seconds = timed(decoder, lambda: decoder.step(hidden, keys, values), repeats)
    return StepSample(((float(context), new),), seconds)


def decode_sample(decoder: Decoder, requests: int, context: int, repeats: int) -> StepSample:
    keys, values = (decoder.cache(requests, context + 1) for _ in range(2))
    hidden = decoder.input(requests, 1)
    run: Callable[[], Any] = lambda: decoder.step(hidden, keys, values)  # noqa: E731
    if decoder.device != "cpu":
        run = graph_of(decoder.torch, run)
    return StepSample(((float(context), 1),) * requests, timed(decoder, run, repeats))


def graph_of(torch: Any, run: Callable[[], Any]) -> Callable[[], Any]:
    stream = torch.cuda.Stream()
    with torch.cuda.stream(stream):
        run()
    torch.cuda.synchronize()
    graph = torch.cuda.CUDAGraph()
    with torch.cuda.graph(graph):
        run()
    return graph.replay  # type: ignore[no-any-return]


def timed(decoder: Decoder, run: Callable[[], Any], repeats: int) -> float:
    """Median seconds; those of as many layers as the model has."""
    synchronize = decoder.torch.cuda.synchronize if decoder.device != "cpu" else lambda: None
    taken = []
    for _ in range(repeats + 2):
        synchronize()
        start_s = time.perf_counter()
        run()
        synchronize()
        taken.append(time.perf_counter() - start_s)
    return statistics.median(taken[2:]) * decoder.model.layers / decoder.layers


def samples(decoder: Decoder, repeats: int, largest: int) -> Iterator[StepSample]:
    """``largest``: tokens of context and new ones, over all requests."""
    for context, new in PREFILLS:
        if context + new <= largest:
            yield prefill_sample(decoder, context, new, repeats)
    for requests, context in DECODES:
        if requests * context <= largest:
            yield decode_sample(decoder, requests, context, repeats)


def report(fit: Fit, measured: list[StepSample], model: ModelProfile, device: str, layers: int) -> str:
    name = f"{fit.hardware.name}-measured"
    source = (
        f"tests/gpu/step_times.py on {device}: {fit.used} of {fit.phases} steps of plain PyTorch in the "
        f"shape of {model.name} ({layers} of {model.layers} layers), {fit.error_text}"
    )
    lines = [
        f"source = {json.dumps(source)}" if line.startswith("source = ") else line
        for line in hardware_table(fit, model, name)
    ]
    predicted = StepTime(replace(fit.hardware, name=name), model).seconds
    lines += ["", "# requests context new: measured ms, predicted ms"]
    for sample in measured:
        context, new = sample.items[0]
        lines.append(
            f"# {len(sample.items)} {context:.0f} {new}: "
            f"{sample.seconds * 1e3:.2f} {predicted(sample.items) * 1e3:.2f}"
        )
    return "\n".join(lines) + "\n"


def main(argv: list[str] | None = None) -> int:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawTextHelpFormatter)
    parser.add_argument("--hardware", default="h200", help="profile whose peak rates hold")
    parser.add_argument("--model", default="qwen3-30b-a3b", choices=sorted(SHAPES))
    parser.add_argument("--layers", type=int, help="fewer than the model has; times are scaled up")
    parser.add_argument("--largest", type=int, default=1 << 20, help="tokens in one step's KV, at most")
    parser.add_argument("--repeats", type=int, default=10)
    parser.add_argument("--device", default="cuda", choices=("cuda", "cpu"))
    parser.add_argument("--out", type=Path)
    options = parser.parse_args(argv)
    try:
        import torch
    except ImportError:
        return skip("PyTorch is not installed")
    if options.device == "cuda" and not torch.cuda.is_available():
        return skip("this machine has no CUDA device")
    model = ModelProfile.load(options.model)
    layers = options.layers or model.layers
    with torch.inference_mode():
        decoder = Decoder(torch, model, layers, options.device)
        measured = list(samples(decoder, options.repeats, options.largest))
    fit = fit_steps(measured, HardwareProfile.load(options.hardware), model)
    device = torch.cuda.get_device_name() if options.device == "cuda" else "a CPU"
    text = report(fit, measured, model, f"{device}, torch {torch.__version__}", layers)
    print(text, end="")  # noqa: T201
    if options.out is not None:
        options.out.write_text(text, encoding="utf-8")
    return 0


def skip(why: str) -> int:
    print(f"SKIPPED, NOTHING MEASURED: {why}", file=sys.stderr)  # noqa: T201
    return SKIPPED


if __name__ == "__main__":
    sys.exit(main())

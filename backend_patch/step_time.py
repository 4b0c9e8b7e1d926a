"""How long one engine step takes, from a profile of the accelerator and one of the model.

A roofline: the step lasts as long as the slower of its arithmetic and its memory traffic, plus a
fixed overhead.

    arithmetic = (2 * active_parameters * n  +  sum over items 4 * L * H * D * t * (c + t/2))
                 / (peak_flops * compute_efficiency)
    traffic    = (dense_bytes + expert_bytes * (1 - (1 - k/E)**n)
                  + sum over items (c + t) * kv_bytes_per_token)
                 / (memory_bytes_per_s * memory_efficiency)

for items of ``t`` new tokens on ``c`` tokens of context, ``n`` the sum of ``t``; L layers, H heads of
dimension D, k of E experts per token. The expert term is the expected share of the experts that n
tokens touch. Constants and their sources are in ``profiles/*.toml``.

The emulated accelerator and the embedded engine both take their times from here, so that they agree.
Standard library only: this module knows neither vLLM nor any sibling package.
"""

import tomllib
from collections.abc import Iterable
from dataclasses import dataclass, fields
from functools import cached_property
from importlib import resources
from pathlib import Path
from typing import Any, Self

HOST_BYTES_PER_S = 25e9
"""PCIe 4.0 x16: 16 GT/s a lane with 128b/130b coding are 31.5e9 B/s each way (PCI-SIG, PCI Express Base
Specification 4.0), of which packet headers and flow control leave about 80 % to a pinned copy."""


@dataclass(frozen=True)
class HardwareProfile:
    """One accelerator; the units are in the names, the sources in ``profiles/hardware.toml``."""

    name: str
    description: str
    source: str
    peak_flops: float
    memory_bytes_per_s: float
    memory_bytes: float
    memory_utilization: float
    reserved_bytes: float
    compute_efficiency: float
    memory_efficiency: float
    step_overhead_s: float

    @classmethod
    def load(cls, name: str) -> Self:
        """By its name, or from a file: a path that ends in ``.toml``, with one such table in it.

        Raises:
            ValueError: it is not known, or not in the file; the message says what is.
        """
        if name.endswith(".toml"):
            return cls(**_file_row(Path(name), cls))
        return cls(**_table("hardware", name, cls))


@dataclass(frozen=True)
class ModelProfile:
    """One model; the sources are in ``profiles/model.toml``."""

    name: str
    served_name: str
    source: str
    active_parameters: float
    dense_bytes: float
    expert_bytes: float
    experts: int
    experts_per_token: int
    layers: int
    attention_heads: int
    kv_heads: int
    head_dim: int
    kv_bytes_per_value: int
    max_context_tokens: int

    @classmethod
    def load(cls, name: str) -> Self:
        return cls(**_table("model", name, cls))

    @property
    def kv_bytes_per_token(self) -> int:
        """Key and value of one token over all layers."""
        return 2 * self.layers * self.kv_heads * self.head_dim * self.kv_bytes_per_value

    @property
    def weight_bytes(self) -> float:
        return self.dense_bytes + self.expert_bytes


class StepTime:
    """Step times of one model on one accelerator."""

    def __init__(self, hardware: HardwareProfile, model: ModelProfile) -> None:
        self.hardware = hardware
        self.model = model
        flops = hardware.peak_flops * hardware.compute_efficiency
        bandwidth = hardware.memory_bytes_per_s * hardware.memory_efficiency
        self._linear_s = 2 * model.active_parameters / flops
        self._attention_s = 4 * model.layers * model.attention_heads * model.head_dim / flops
        self._dense_s = model.dense_bytes / bandwidth
        self._experts_s = model.expert_bytes / bandwidth
        self._kv_s = model.kv_bytes_per_token / bandwidth
        self._expert_miss = 1 - model.experts_per_token / model.experts if model.experts else 1.0

    def seconds(self, items: Iterable[tuple[float, int]], /) -> float:
        """Seconds of a step over ``(context_before, new_tokens)`` items; 0.0 for an empty step."""
        new_tokens = 0
        context_tokens = 0.0
        attended = 0.0
        for context, new in items:
            new_tokens += new
            context_tokens += context + new
            attended += new * (context + 0.5 * new)
        if not new_tokens:
            return 0.0
        compute_s = self._linear_s * new_tokens + self._attention_s * attended
        covered = 1 - self._expert_miss**new_tokens
        memory_s = self._dense_s + self._experts_s * covered + self._kv_s * context_tokens
        return max(compute_s, memory_s) + self.hardware.step_overhead_s

    def decode_seconds(self, requests: int, context_tokens: float, /) -> float:
        """``seconds`` of one new token for each request; ``context_tokens`` is the sum of what they have
        before it. Linear in that sum on either side of the roofline."""
        compute_s = self._linear_s * requests + self._attention_s * (context_tokens + 0.5 * requests)
        covered = 1 - self._expert_miss**requests
        kv_tokens = context_tokens + requests
        memory_s = self._dense_s + self._experts_s * covered + self._kv_s * kv_tokens
        return max(compute_s, memory_s) + self.hardware.step_overhead_s

    def host_copy_seconds(self, tokens: int, bytes_per_s: float = HOST_BYTES_PER_S) -> float:
        """Of the KV of that many tokens between the accelerator and the host's memory."""
        return tokens * self.model.kv_bytes_per_token / bytes_per_s

    @cached_property
    def default_kv_tokens(self) -> int:
        """Tokens of KV cache that fit beside the weights; 0 or less where the model does not fit."""
        usable = self.hardware.memory_bytes * self.hardware.memory_utilization
        spare = usable - self.hardware.reserved_bytes - self.model.weight_bytes
        return int(spare // self.model.kv_bytes_per_token)


def hardware_names() -> list[str]:
    return sorted(_tables("hardware"))


def model_names() -> list[str]:
    return sorted(_tables("model"))


def _tables(kind: str) -> dict[str, dict[str, Any]]:
    text = resources.files("backend_patch").joinpath("profiles", f"{kind}.toml").read_text("utf-8")
    return tomllib.loads(text)


def _table(kind: str, name: str, profile: type) -> dict[str, Any]:
    tables = _tables(kind)
    if name not in tables:
        raise ValueError(f"unknown {kind} profile {name!r}; known: {', '.join(sorted(tables))}")
    return _row(kind, name, tables[name], profile)


def _file_row(path: Path, profile: type) -> dict[str, Any]:
    """Tables without ``peak_flops`` are about something else: what was measured beside the hardware."""
    try:
        tables = tomllib.loads(path.read_text("utf-8"))
    except OSError as exc:
        raise ValueError(f"hardware profile {path}: cannot be read: {exc.strerror}") from exc
    except (tomllib.TOMLDecodeError, UnicodeDecodeError) as exc:
        raise ValueError(f"hardware profile {path}: not a TOML file: {exc}") from exc
    found = [name for name, table in tables.items() if isinstance(table, dict) and "peak_flops" in table]
    if len(found) != 1:
        raise ValueError(
            f"hardware profile {path}: has {len(found)} tables with peak_flops; allowed: one, named after "
            "the hardware, with the keys of backend_patch/profiles/hardware.toml"
        )
    return _row("hardware", found[0], tables[found[0]], profile)


def _row(kind: str, name: str, table: dict[str, Any], profile: type) -> dict[str, Any]:
    row = {"name": name} | table
    names = {field.name for field in fields(profile)}
    if odd := names.symmetric_difference(row):
        raise ValueError(f"{kind} profile {name!r}: missing or unknown keys: {', '.join(sorted(odd))}")
    for field in fields(profile):
        value, wanted = row[field.name], str if field.type is str else int | float
        if not isinstance(value, wanted) or isinstance(value, bool):
            raise ValueError(f"{kind} profile {name!r}: {field.name} must be a {_word(wanted)}")
    return row


def _word(wanted: object) -> str:
    return "string" if wanted is str else "number"

"""What ``--workload`` says: a profile or a file, with settings of its own, or a mixture of several.

    autonomous
    traces.jsonl.gz?src=NAME&max_turns=60
    mix:autonomous=50,tool-heavy=40,traces.jsonl.gz?src=NAME=10

Must not know: what is in profiles and files.
"""

import math
from dataclasses import dataclass, field
from pathlib import Path

import msgspec

from loadgen.errors import LoadgenError
from loadgen.modifiers import Modifiers
from loadgen.trace import Select

MIXTURE = "mix:"


class PartSettings(msgspec.Struct, frozen=True, forbid_unknown_fields=True):
    """What may follow a name, after ``?``. The options of the same names are for what has none of its own."""

    src: str | None = None
    shared_prompt_tokens: int | None = None
    fallback: str | None = None
    max_turns: int | None = None
    scale_tokens: float = 1.0
    scale_gaps: float = 1.0
    max_context_tokens: int | None = None
    max_gap_s: float | None = None

    def modifiers(self) -> Modifiers:
        return Modifiers(
            self.max_turns, self.scale_tokens, self.scale_gaps, self.max_context_tokens, self.max_gap_s
        )


@dataclass(frozen=True, slots=True)
class Part:
    """A profile or a file, and how much of a mixture it is."""

    name: str
    select: Select | None = None
    shared_prompt_tokens: int = 0
    fallback: str | None = None
    modifiers: Modifiers = field(default_factory=Modifiers)
    weight: float = 1.0


@dataclass(frozen=True, slots=True)
class WorkloadName:
    label: str
    """As given, without the directories of files: for tables."""
    parts: tuple[Part, ...]
    is_mixture: bool


def parse_workload_name(text: str, defaults: Part) -> WorkloadName:
    """``defaults`` says what a part has that says nothing else; its name does not matter."""
    if not text.startswith(MIXTURE):
        return WorkloadName(label_of(text), (parse_part(text, defaults, 1.0),), is_mixture=False)
    weighted = [parse_weight(part) for part in text.removeprefix(MIXTURE).split(",")]
    label = ",".join(f"{label_of(part)}={weight:g}" for part, weight in weighted)
    parts = tuple(parse_part(part, defaults, weight) for part, weight in weighted)
    return WorkloadName(MIXTURE + label, parts, is_mixture=True)


def parse_weight(text: str) -> tuple[str, float]:
    name, _, weight = text.rpartition("=")
    try:
        share = float(weight)
    except ValueError:
        share = math.nan
    if not name or not 0 < share < math.inf:
        raise LoadgenError(
            f"part {text!r} of a mixture has no weight; allowed: NAME=WEIGHT with a number more than 0"
        )
    return name, share


def parse_part(text: str, defaults: Part, weight: float) -> Part:
    name, _, query = text.partition("?")
    settings = parse_settings(text, query)
    modifiers = settings.modifiers()
    modifiers.check()
    shared = settings.shared_prompt_tokens
    if shared is not None and shared < 0:
        raise LoadgenError(f"workload {text!r}: shared_prompt_tokens is {shared}; allowed: 0 or more")
    return Part(
        name=name,
        select=defaults.select if settings.src is None else Select("src", settings.src),
        shared_prompt_tokens=defaults.shared_prompt_tokens if shared is None else shared,
        fallback=defaults.fallback if settings.fallback is None else settings.fallback,
        modifiers=modifiers,
        weight=weight,
    )


def parse_settings(text: str, query: str) -> PartSettings:
    given = dict(pair.partition("=")[::2] for pair in query.split("&") if pair)
    try:
        return msgspec.convert(given, PartSettings, strict=False)
    except msgspec.ValidationError as exc:
        allowed = ", ".join(PartSettings.__struct_fields__)
        raise LoadgenError(f"workload {text!r}: {exc}; allowed after '?': {allowed}") from exc


def label_of(text: str) -> str:
    name, is_there, query = text.partition("?")
    return Path(name).name + is_there + query

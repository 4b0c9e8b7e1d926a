"""A profile: the distributions of one kind of agent, and how a session is drawn from them."""

import tomllib
from dataclasses import dataclass
from importlib.resources import files
from random import Random
from typing import Any

from loadgen.errors import FieldError, LoadgenError
from loadgen.profiles.distribution import Distribution, parse_distribution
from loadgen.workload import Session, ToolCall, Turn

LEAST_NEW_TOKENS = 16
"""What a prompt grows by at the least: one short message with its role marks."""


@dataclass(frozen=True, slots=True)
class ToolProfile:
    name: str
    share: float
    """Of all tool calls of the profile."""
    duration_s: Distribution
    cores: float
    memory_mb: Distribution


@dataclass(frozen=True, slots=True)
class Profile:
    name: str
    about: str
    system_tokens: int
    """Shared by all sessions of the profile."""
    turns: Distribution
    first_prompt_tokens: Distribution
    """System prompt included."""
    new_tokens: Distribution
    new_tokens_include_answer: bool
    """The source counted the previous answer among the new tokens; a turn adds what is left."""
    output_tokens: Distribution
    user_pause_share: float
    """Of all gaps; the others are tool calls."""
    user_pause_s: Distribution | None
    max_context_tokens: int
    """A session ends before the turn that would not fit."""
    tools: tuple[ToolProfile, ...]

    def session(self, index: int, seed: int) -> Session:
        # A generator of its own per session: a str seed is hashed the same in every process.
        # Memory has its own, so that the other draws do not depend on what is known of it.
        key = f"{self.name}/{seed}/{index}"
        return Session(
            id=f"{self.name}-{seed}-{index}",
            turns=self.draw_turns(Random(key), Random(f"{key}/memory")),
            system_tokens=self.system_tokens,
            system_id=self.name,
        )

    def draw_turns(self, rng: Random, memory_rng: Random) -> list[Turn]:
        count = self.turns.sample_int(rng)
        first = max(LEAST_NEW_TOKENS, self.first_prompt_tokens.sample_int(rng) - self.system_tokens)
        turns: list[Turn] = []
        context = self.system_tokens
        for i in range(count):
            new = self.draw_new_tokens(rng, turns[-1]) if turns else first
            output = self.output_tokens.sample_int(rng)
            tool, pause_s = self.draw_gap(rng, memory_rng)
            context += new + output
            if turns and context > self.max_context_tokens:
                break
            is_last = i == count - 1
            turns.append(Turn(new, output, None if is_last else tool, None if is_last else pause_s))
        turns[-1] = Turn(turns[-1].new_tokens, turns[-1].output_tokens)
        return turns

    def draw_new_tokens(self, rng: Random, before: Turn) -> int:
        new = self.new_tokens.sample_int(rng)
        if self.new_tokens_include_answer:
            new -= before.output_tokens
        return max(LEAST_NEW_TOKENS, new)

    def draw_gap(self, rng: Random, memory_rng: Random) -> tuple[ToolCall | None, float | None]:
        """Always three draws, so that a change of one figure leaves the others' draws alone."""
        which, kind, share = rng.random(), rng.random(), rng.random()
        memory = memory_rng.random()
        if which < self.user_pause_share and self.user_pause_s is not None:
            return None, round(self.user_pause_s.at(share), 3)
        tool = pick(self.tools, kind)
        memory_mb = round(tool.memory_mb.at(memory), 1)
        return ToolCall(tool.name, round(tool.duration_s.at(share), 4), tool.cores, memory_mb), None


def pick(tools: tuple[ToolProfile, ...], share: float) -> ToolProfile:
    left = share * sum(tool.share for tool in tools)
    for tool in tools:
        left -= tool.share
        if left < 0:
            return tool
    return tools[-1]


def profile_names() -> list[str]:
    found = files("loadgen.profiles").iterdir()
    return sorted(entry.name.removesuffix(".toml") for entry in found if entry.name.endswith(".toml"))


def load_profile(name: str) -> Profile:
    if name not in profile_names():
        raise LoadgenError(f"no profile {name!r}; allowed: {', '.join(profile_names())}, or a workload file")
    text = files("loadgen.profiles").joinpath(f"{name}.toml").read_text("utf-8")
    try:
        return parse_profile(name, tomllib.loads(text))
    except FieldError as exc:
        raise LoadgenError(f"profile {name!r}, {exc}") from exc


def parse_profile(name: str, table: dict[str, Any]) -> Profile:
    pause = table.get("user_pause_s")
    return Profile(
        name=name,
        about=table["about"],
        system_tokens=table["system_tokens"],
        turns=parse_distribution("turns", table["turns"]),
        first_prompt_tokens=parse_distribution("first_prompt_tokens", table["first_prompt_tokens"]),
        new_tokens=parse_distribution("new_tokens", table["new_tokens"]),
        new_tokens_include_answer=table.get("new_tokens_include_answer", False),
        output_tokens=parse_distribution("output_tokens", table["output_tokens"]),
        user_pause_share=table.get("user_pause_share", 0.0),
        user_pause_s=parse_distribution("user_pause_s", pause) if pause is not None else None,
        max_context_tokens=table["max_context_tokens"],
        tools=tuple(parse_tool(i, tool) for i, tool in enumerate(table["tools"])),
    )


def parse_tool(i: int, table: dict[str, Any]) -> ToolProfile:
    return ToolProfile(
        name=table["name"],
        share=float(table["share"]),
        duration_s=parse_distribution(f"tools[{i}].duration_s", table["duration_s"]),
        cores=float(table["cores"]),
        memory_mb=parse_memory(f"tools[{i}].memory_mb", table["memory_mb"]),
    )


def parse_memory(field: str, value: Any) -> Distribution:
    """A number is the same for every call."""
    return parse_distribution(field, value if isinstance(value, dict) else {"constant": value})

"""What the model says: the whole answer to a request, fixed before its first token is scheduled.

Scripted answers say what they are told. Everything else is made of four-letter pieces drawn by the
hash of the prompt and the engine's seed, so that two runs give the same text. One piece is one token.
"""

import math
import random
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Literal

from xxhash import xxh3_64_intdigest

from backend_patch.script import ScriptedAnswer, ToolUse
from loadgen.engine.prompt import tool_call_body, tool_call_opening
from loadgen.engine.tokens import TOKEN_BYTES, decode, encode, token_count

FinishReason = Literal["stop", "length", "tool_calls"]

CONSONANTS = "bcdfghjklmnprstvwxyz"
VOWELS = "aeiou"

# Length of an answer that nobody fixed: log-normal around the 168 output tokens per turn that
# SWE-bench agent traces average (7.3 thousand over 43.5 turns), never a bare word.
MEAN_TOKENS = 168
SIGMA = 0.8
LEAST_TOKENS = 8


@dataclass(frozen=True, slots=True)
class Wanted:
    """The limits that a request sets on its answer."""

    max_tokens: int
    min_tokens: int = 0
    exact_tokens: int | None = None
    ignore_eos: bool = False
    stop: Sequence[str] = ()


@dataclass(frozen=True, slots=True)
class CallSpan:
    """Where in the answer's bytes a tool call lies."""

    use: ToolUse
    start: int
    arguments_start: int
    arguments_end: int
    end: int


@dataclass(frozen=True, slots=True)
class Answer:
    """The tokens of an answer and how to read them."""

    body: bytes
    """Whole tokens: the text, then each tool call."""
    text_end: int
    """Bytes of ``body`` that are content; what follows, up to the first call, is a cut-off stop string."""
    calls: tuple[CallSpan, ...]
    finish_reason: FinishReason
    stop_reason: str | None = None

    @property
    def tokens(self) -> int:
        return len(self.body) // TOKEN_BYTES

    @property
    def text(self) -> str:
        """The content of the whole answer; a call cut off by the length limit stays raw text."""
        cut = next((call for call in self.calls if call.end > len(self.body)), None)
        return decode(self.body[: self.text_end]) + (decode(self.body[cut.start :]) if cut else "")

    @property
    def complete_calls(self) -> list[CallSpan]:
        return [call for call in self.calls if call.end <= len(self.body)]


def scripted(answer: ScriptedAnswer, wanted: Wanted, seed: int) -> Answer:
    least = wanted.exact_tokens if answer.output_tokens is None else answer.output_tokens
    calls = b"".join(tool_call_body(use.name, use.arguments) for use in answer.calls)
    text = answer.text
    missing = (least or 0) - token_count(calls) - token_count(text.encode())
    if missing > 0:
        text += _filler(missing, seed)
    if not text and not calls:
        text = _filler(1, seed)
    return _fit(text, answer.calls, "tool_calls" if calls else "stop", wanted)


def generated(wanted: Wanted, seed: int) -> Answer:
    if wanted.exact_tokens is not None:
        tokens = max(1, wanted.exact_tokens)
    elif wanted.ignore_eos:
        tokens = wanted.max_tokens + 1
    else:
        tokens = max(wanted.min_tokens, _usual_length(seed))
    return _fit(_filler(min(tokens, wanted.max_tokens + 1), seed), (), "stop", wanted)


def as_text(answer: Answer) -> Answer:
    """The same tokens for a route without tool calls: they are all text."""
    if not answer.calls:
        return answer
    reason: FinishReason = "length" if answer.finish_reason == "length" else "stop"
    return Answer(answer.body, len(answer.body), (), reason, answer.stop_reason)


def answer_seed(prompt: bytes, seed: int, choice: int) -> int:
    """The source of randomness of one choice: the same prompt, seed and index say the same."""
    return xxh3_64_intdigest(prompt, xxh3_64_intdigest(f"{seed}/{choice}".encode()))


def _fit(text: str, uses: Sequence[ToolUse], reason: FinishReason, wanted: Wanted) -> Answer:
    """Cut to the first stop string and to the token limit."""
    stop = _first_stop(text, wanted)
    text_end = len(text.encode("utf-8", "replace"))
    if stop is not None:
        at, word = stop
        text_end = len(text[:at].encode("utf-8", "replace"))
        text, uses, reason = text[: at + len(word)], (), "stop"
    body, calls = _lay_out(text, uses)
    limit = wanted.max_tokens * TOKEN_BYTES
    if len(body) <= limit:
        return Answer(body, text_end, calls, reason, stop[1] if stop else None)
    reached = tuple(call for call in calls if call.start < limit)
    return Answer(body[:limit], min(text_end, limit), reached, "length")


def _lay_out(text: str, uses: Sequence[ToolUse]) -> tuple[bytes, tuple[CallSpan, ...]]:
    body = encode(text)
    calls = []
    for use in uses:
        start = len(body)
        body += tool_call_body(use.name, use.arguments)
        arguments_start = start + len(tool_call_opening(use.name).encode())
        arguments_end = arguments_start + len(use.arguments.encode())
        calls.append(CallSpan(use, start, arguments_start, arguments_end, len(body)))
    return body, tuple(calls)


def _first_stop(text: str, wanted: Wanted) -> tuple[int, str] | None:
    # vLLM looks for stop strings only behind the first min_tokens tokens.
    start = wanted.min_tokens * TOKEN_BYTES
    found = [(at, word) for word in wanted.stop if word and (at := text.find(word, start)) >= 0]
    return min(found, default=None)


def _usual_length(seed: int) -> int:
    mu = math.log(MEAN_TOKENS) - SIGMA**2 / 2
    return max(LEAST_TOKENS, round(random.Random(seed).lognormvariate(mu, SIGMA)))


def _filler(tokens: int, seed: int) -> str:
    """That many four-byte pieces that need no escaping in JSON."""
    draw = random.Random(seed ^ tokens)
    letters = zip(
        draw.choices(CONSONANTS, k=tokens),
        draw.choices(VOWELS, k=tokens),
        draw.choices(CONSONANTS, k=tokens),
        strict=True,
    )
    return "".join(f"{a}{b}{c} " for a, b, c in letters)

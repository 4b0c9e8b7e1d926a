"""Which token the n-th of an answer is.

Owns lengths and filler. A token depends on the request alone: on its prompt, its sampling parameters, the
seed and its own number. So batching, preemption, asynchronous steps that are thrown away, and the scheduler
at work change nothing in it.

Filler is made of words that are one token each and come out as the same tokens when their text is read
again, so that the next turn's prompt finds the answer in the prefix cache. Knows no vLLM and no model: the
tokenizer comes as a ``Tokenizer``.
"""

import hashlib
import math
import random
from array import array
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from enum import StrEnum
from typing import Any, Protocol, Self

MEAN_TOKENS, SIGMA, LEAST_TOKENS = 168, 0.8, 8
"""Of answers whose length nobody set: lognormal around the 168 output tokens per turn that SWE-bench agent
traces average; the same as in the embedded engine."""

ENOUGH_WORDS = 512
MOST_IDS_TRIED = 60_000
"""A vocabulary begins with its most frequent tokens; words of one token are among them."""
TAIL_TOKENS = 256
"""Of a prompt, that tell it from others; with its length. All of a long one would cost a millisecond."""


class OutputArg(StrEnum):
    """Members of a request's ``vllm_xargs`` that say what to answer."""

    TOKENS = "mars_output_tokens"
    """Length of the answer in tokens, the one that ends it included; a script that is longer goes on."""
    TEXT = "mars_output_text"
    IDS = "mars_output_ids"
    """Token ids, as a list; goes before the text."""


def check_output_args(xargs: Mapping[str, Any]) -> None:
    """Raises:
    ValueError: what a request asks to be answered cannot be read; the message names the key.
    """
    tokens, text, ids = (xargs.get(key) for key in (OutputArg.TOKENS, OutputArg.TEXT, OutputArg.IDS))
    if tokens is not None and _count(tokens) is None:
        raise ValueError(f"vllm_xargs.{OutputArg.TOKENS} must be a number of tokens, 1 or more")
    if text is not None and not isinstance(text, str):
        raise ValueError(f"vllm_xargs.{OutputArg.TEXT} must be a string")
    if ids is not None and not (isinstance(ids, list) and all(isinstance(each, int) for each in ids)):
        raise ValueError(f"vllm_xargs.{OutputArg.IDS} must be a list of token ids")


class Tokenizer(Protocol):
    def encode(self, text: str, /, *, add_special_tokens: bool) -> list[int]: ...

    def decode(self, ids: Sequence[int], /) -> str: ...


@dataclass(frozen=True, slots=True)
class Words:
    """Tokens to fill answers with."""

    openers: tuple[int, ...]
    """Without a space before: templates strip the one that an answer begins with."""
    words: tuple[int, ...]

    @classmethod
    def of(cls, tokenizer: Tokenizer, vocabulary: int) -> Self:
        """Raises:
        ValueError: the vocabulary has none.
        """
        openers: list[int] = []
        words: list[int] = []
        for token in range(min(vocabulary, MOST_IDS_TRIED)):
            text = tokenizer.decode([token])
            if not _is_word(text) or tokenizer.encode(text, add_special_tokens=False) != [token]:
                continue
            (words if text[0] == " " else openers).append(token)
            if len(words) >= ENOUGH_WORDS and openers:
                break
        if not words or not openers:
            raise ValueError("the tokenizer has no words that are one token each: take another model folder")
        return cls(tuple(openers[:ENOUGH_WORDS]), tuple(words))


def _is_word(text: str) -> bool:
    return len(text) > 2 and text.isascii() and text[1:].isalpha() and (text[0] == " " or text[0].isalpha())


@dataclass(frozen=True, slots=True)
class OutputPlan:
    """The answer to one request."""

    words: Words
    script: tuple[int, ...]
    end: int | None
    """Number, from 0, of the token that ends it. None: nothing but the length limit does."""
    eos: int | None
    base: int
    """What this request's filler begins with."""

    def token(self, n: int) -> int:
        if self.end is not None and self.eos is not None and n >= self.end:
            return self.eos
        if n < len(self.script):
            return self.script[n]
        pool = self.words.words if n else self.words.openers
        mixed = (self.base + n) * 2654435761 & 0xFFFFFFFF  # Knuth's multiplicative hash
        return pool[(mixed ^ mixed >> 15) % len(pool)]

    def may_end(self, n: int) -> bool:
        return self.end is not None and n >= self.end


class Planner:
    """Reads what a request asks for."""

    def __init__(self, tokenizer: Tokenizer, vocabulary: int, eos: int | None, seed: int) -> None:
        self._tokenizer = tokenizer
        self._vocabulary = vocabulary
        self._eos = eos
        self._words = Words.of(tokenizer, vocabulary)
        self._seed = seed

    def plan(
        self,
        prompt: Sequence[int],
        xargs: Mapping[str, Any],
        *,
        min_tokens: int = 0,
        ignore_eos: bool = False,
        seed: int | None = None,
    ) -> OutputPlan:
        script = tuple(self._script(xargs))
        base = _fingerprint(prompt, self._seed, seed)
        eos = None if ignore_eos else self._eos
        end = None if eos is None else self._end(xargs, script, base, min_tokens)
        return OutputPlan(self._words, script, end, eos, base)

    def _script(self, xargs: Mapping[str, Any]) -> Iterable[int]:
        """What is not a token of this model is left out: the engine cannot refuse a request any more."""
        ids, text = xargs.get(OutputArg.IDS), xargs.get(OutputArg.TEXT)
        if isinstance(ids, list):
            return (token for token in ids if isinstance(token, int) and 0 <= token < self._vocabulary)
        if isinstance(text, str):
            return self._tokenizer.encode(text, add_special_tokens=False)
        return ()

    def _end(self, xargs: Mapping[str, Any], script: Sequence[int], base: int, min_tokens: int) -> int:
        wanted = _count(xargs.get(OutputArg.TOKENS))
        if wanted is not None:
            wanted = max(wanted, len(script) + 1 if script else 1)
        elif script:
            wanted = len(script) + 1
        else:
            wanted = _usual_length(base)
        return max(wanted, min_tokens) - 1


def _count(value: object) -> int | None:
    """From a number, or from one in a string: proxies and shims send both."""
    try:
        count = int(value)  # type: ignore[call-overload]
    except (TypeError, ValueError, OverflowError):
        return None
    return count if count >= 1 else None


def _fingerprint(prompt: Sequence[int], *seeds: int | None) -> int:
    tail = array("q", [len(prompt), *prompt[-TAIL_TOKENS:]]).tobytes()
    digest = hashlib.blake2b(tail, digest_size=8, key=repr(seeds).encode()[:64])
    return int.from_bytes(digest.digest(), "little")


def _usual_length(base: int) -> int:
    mu = math.log(MEAN_TOKENS) - SIGMA**2 / 2
    return max(LEAST_TOKENS, round(random.Random(base).lognormvariate(mu, SIGMA)))

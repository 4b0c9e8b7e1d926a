"""A token that the grammar of a structured output allows.

The intended one if it is among them; the end, when it is allowed and long enough has been written; else
the one character that brings the text nearest to its end. A vocabulary of bytes spells everything, so any
grammar can be followed with single characters. Knows bitmasks, not grammars: a row has one bit for each
token, in 32-bit words, the lowest bit first.
"""

import string
from collections.abc import Sequence

import numpy as np
import numpy.typing as npt

from backend_patch.emulator.sampler import OutputPlan, Tokenizer

PATIENCE_TOKENS = 64
"""Beyond the wanted length; then choices vary, because the preferred one may lead round in a circle."""

CLOSING = '"}],:'
"""In this order: a string ends before what it is in does, because within it all the others are content."""
TOWARDS_THE_END = CLOSING + "".join(
    each for each in string.punctuation + string.digits + string.ascii_letters if each not in CLOSING
)
"""Punctuation goes before digits and letters, of which patterns allow any number: ``[a-z]+@[a-z]+``."""


class GrammarChoice:
    def __init__(self, tokenizer: Tokenizer) -> None:
        encoded = (tokenizer.encode(each, add_special_tokens=False) for each in TOWARDS_THE_END)
        self._preferred = [ids[0] for ids in encoded if len(ids) == 1]

    def choose(self, row: npt.NDArray[np.int32], plan: OutputPlan, n: int) -> int:
        """The n-th token of the answer."""
        is_long_enough = plan.may_end(n)
        if is_long_enough and plan.eos is not None and is_allowed(row, plan.eos):
            return plan.eos
        intended = plan.token(n)
        if not is_long_enough and is_allowed(row, intended):
            return intended
        for token in self._candidates(plan, n):
            if is_allowed(row, token):
                return token
        return _any_allowed(row, plan.eos)

    def _candidates(self, plan: OutputPlan, n: int) -> Sequence[int]:
        end = n if plan.end is None else plan.end
        if n <= end + PATIENCE_TOKENS:
            return self._preferred
        turn = (plan.base + n) * 2654435761 % len(self._preferred)
        return [*self._preferred[turn:], *self._preferred[:turn]]


def is_allowed(row: npt.NDArray[np.int32], token: int) -> bool:
    word = token >> 5
    return word < len(row) and bool(int(row[word]) >> (token & 31) & 1)


def _any_allowed(row: npt.NDArray[np.int32], eos: int | None) -> int:
    if eos is not None and is_allowed(row, eos):
        return eos
    bits = np.unpackbits(np.ascontiguousarray(row).view(np.uint8), bitorder="little")
    return int(bits.argmax())

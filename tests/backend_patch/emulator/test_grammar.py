"""Allowed tokens: the intended one, the end, or what leads to it."""

from collections.abc import Callable

import numpy as np
import numpy.typing as npt
import pytest

from backend_patch.emulator.grammar import GrammarChoice, is_allowed
from backend_patch.emulator.sampler import OutputPlan, Planner
from tests.backend_patch.emulator.vocabulary import EOS, LittleTokenizer

TOKENIZER = LittleTokenizer()
CHOICE = GrammarChoice(TOKENIZER)


def row(*allowed: int) -> npt.NDArray[np.int32]:
    words = np.zeros((len(TOKENIZER) + 31) // 32, dtype=np.uint32)
    for token in allowed:
        words[token >> 5] |= np.uint32(1 << (token & 31))
    return words.view(np.int32)


def ids(*pieces: str) -> list[int]:
    return [TOKENIZER.pieces.index(piece) for piece in pieces]


def plan(tokens: int | None = 10, **xargs: object) -> OutputPlan:
    planner = Planner(TOKENIZER, len(TOKENIZER), EOS, 0)
    return planner.plan([1, 2, 3], {"mars_output_tokens": tokens} | xargs)


def chosen(allowed: npt.NDArray[np.int32], n: int) -> str:
    return TOKENIZER.pieces[CHOICE.choose(allowed, plan(), n)]


@pytest.mark.parametrize("token", [0, 1, 31, 32, 63, 95])
def test_bits_are_read_from_the_lowest(token: int) -> None:
    mask = row(token)
    assert [each for each in range(len(mask) * 32) if is_allowed(mask, each)] == [token]
    assert not is_allowed(mask, 10**6)


def test_intended_token_goes_first() -> None:
    answer = plan()
    everything = row(*range(len(TOKENIZER)))
    assert CHOICE.choose(everything, answer, 4) == answer.token(4)


def test_end_comes_when_it_may_and_not_before() -> None:
    everything = row(*range(len(TOKENIZER)))
    assert CHOICE.choose(everything, plan(), 9) == EOS
    assert chosen(row(EOS, *ids("a")), 3) == "a"
    assert chosen(row(EOS), 3) == "<end>"


def test_what_closes_goes_before_what_goes_on() -> None:
    """A string before its object; a separator before any number of digits; white space never by choice."""
    assert chosen(row(*ids('"', "}", "a")), 3) == '"'
    assert chosen(row(*ids("}", ",", " ")), 3) == "}"
    assert chosen(row(*ids("@", "a", "7")), 3) == "@"
    assert chosen(row(*ids(" ", "7")), 3) == "7"
    assert chosen(row(*ids(" ")), 3) == " "


def test_length_reached_closes_instead_of_going_on() -> None:
    """Within a string everything is allowed but the end."""
    no_end = row(*range(1, len(TOKENIZER)))
    assert chosen(no_end, 20) == '"'


def follow(step: Callable[[str, str], str], start: str, allowed: dict[str, dict[str, bool]]) -> str:
    """What is said in a little automaton: state to allowed pieces; ``<end>`` ends."""
    answer, state, text = plan(), start, ""
    for n in range(2000):
        pieces = allowed[state]
        piece = TOKENIZER.pieces[CHOICE.choose(row(*ids(*pieces)), answer, n)]
        if piece == "<end>":
            return text
        text, state = text + piece, step(state, piece)
    raise AssertionError("it never ended")


def test_circles_are_left() -> None:
    """``(ab)*c``: what is preferred leads round for ever, so choices vary after a while."""
    moves = {"start": {"a": True, "c": True}, "a": {"b": True}, "end": {"<end>": True}}
    after = {("start", "a"): "a", ("a", "b"): "start", ("start", "c"): "end"}
    said = follow(lambda state, piece: after[state, piece], "start", moves)
    assert said.endswith("c")
    assert said[:-1] == "ab" * (len(said) // 2)

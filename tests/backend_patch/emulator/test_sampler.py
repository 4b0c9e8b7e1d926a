"""Which token an answer has where: lengths, scripts, and filler that reads back as itself."""

from typing import Any

import pytest

from backend_patch.emulator.sampler import LEAST_TOKENS, OutputPlan, Planner, Words, check_output_args
from tests.backend_patch.emulator.vocabulary import EOS, LittleTokenizer

TOKENIZER = LittleTokenizer()
PROMPT = list(range(40))


def planner(seed: int = 0) -> Planner:
    return Planner(TOKENIZER, len(TOKENIZER), EOS, seed)


def said(plan: OutputPlan, limit: int = 5000) -> list[int]:
    """Until it ends, the end included."""
    tokens = []
    for n in range(limit):
        tokens.append(plan.token(n))
        if tokens[-1] == EOS:
            break
    return tokens


@pytest.mark.parametrize("wanted", [1, 2, 17, 300])
def test_length_is_exact(wanted: int) -> None:
    tokens = said(planner().plan(PROMPT, {"mars_output_tokens": wanted}))
    assert len(tokens) == wanted
    assert tokens.index(EOS) == wanted - 1


def test_filler_reads_back_as_itself() -> None:
    """After a template's line end as well: it begins without a space."""
    tokens = said(planner().plan(PROMPT, {"mars_output_tokens": 200}))[:-1]
    text = TOKENIZER.decode(tokens)
    assert TOKENIZER.encode(text, add_special_tokens=False) == tokens
    assert text == text.strip()


def test_same_request_same_answer() -> None:
    """And another seed, prompt or length of prompt another one."""
    xargs = {"mars_output_tokens": 50}
    first = said(planner().plan(PROMPT, xargs))
    assert said(planner().plan(list(PROMPT), dict(xargs))) == first
    others = [
        planner(seed=1).plan(PROMPT, xargs),
        planner().plan(PROMPT, xargs, seed=5),
        planner().plan(PROMPT[:-1], xargs),
        planner().plan([*PROMPT[1:], 7], xargs),
    ]
    assert first not in [said(other) for other in others]
    assert len({tuple(said(other)) for other in others}) == len(others)


def test_long_prompts_differ_by_length() -> None:
    """Only their ends are read."""
    tail = list(range(50)) * 20
    answers = {tuple(said(planner().plan([1] * more + tail, {"mars_output_tokens": 30}))) for more in (0, 1)}
    assert len(answers) == 2


def test_script_then_end() -> None:
    """Ids as they are, text as its tokens; ids go first."""
    script = TOKENIZER.encode("bar car", add_special_tokens=False)
    assert said(planner().plan(PROMPT, {"mars_output_ids": [5, 6, 7]})) == [5, 6, 7, EOS]
    assert said(planner().plan(PROMPT, {"mars_output_text": "bar car"})) == [*script, EOS]
    both = {"mars_output_text": "bar car", "mars_output_ids": [5]}
    assert said(planner().plan(PROMPT, both)) == [5, EOS]


def test_script_is_lengthened_but_never_cut() -> None:
    script = {"mars_output_ids": [5, 6, 7]}
    longer = said(planner().plan(PROMPT, script | {"mars_output_tokens": 10}))
    assert (longer[:3], len(longer)) == ([5, 6, 7], 10)
    assert said(planner().plan(PROMPT, script | {"mars_output_tokens": 2})) == [5, 6, 7, EOS]


def test_what_is_no_token_is_left_out() -> None:
    ids: list[Any] = [5, -1, 10**9, "x", 6]
    assert said(planner().plan(PROMPT, {"mars_output_ids": ids})) == [5, 6, EOS]


def test_length_in_a_string_counts() -> None:
    assert len(said(planner().plan(PROMPT, {"mars_output_tokens": "12"}))) == 12


def test_without_wishes_lengths_vary() -> None:
    """Also where the wish is no number."""
    lengths = [
        len(said(planner().plan([n], {"mars_output_tokens": odd})))
        for n in range(20)
        for odd in (None, "many")
    ]
    assert min(lengths) >= LEAST_TOKENS
    assert len(set(lengths)) > 10


def test_end_waits_for_min_tokens_and_ignore_eos() -> None:
    assert len(said(planner().plan(PROMPT, {"mars_output_tokens": 5}, min_tokens=12))) == 12
    endless = planner().plan(PROMPT, {"mars_output_tokens": 5}, ignore_eos=True)
    assert EOS not in said(endless, limit=1000)
    assert not endless.may_end(10**6)


@pytest.mark.parametrize(
    ("xargs", "named"),
    [
        ({"mars_output_tokens": "many"}, "mars_output_tokens"),
        ({"mars_output_tokens": 0}, "mars_output_tokens"),
        ({"mars_output_tokens": float("inf")}, "mars_output_tokens"),
        ({"mars_output_text": 5}, "mars_output_text"),
        ({"mars_output_ids": "5"}, "mars_output_ids"),
        ({"mars_output_ids": [5, "6"]}, "mars_output_ids"),
    ],
)
def test_wishes_that_cannot_be_read_are_named(xargs: dict[str, Any], named: str) -> None:
    with pytest.raises(ValueError, match=named):
        check_output_args(xargs)


def test_wishes_that_can_be_read_pass() -> None:
    check_output_args({})
    check_output_args(
        {"mars_output_tokens": "7", "mars_output_text": "a", "mars_output_ids": [5], "mars_ttl_ms": 1}
    )


def test_tokenizer_without_words_is_refused() -> None:
    letters = LittleTokenizer(["<end>", *"abcdefgh "])
    with pytest.raises(ValueError, match="no words"):
        Words.of(letters, len(letters))

"""What is said: exact where scripted, repeatable where not, cut where the request says."""

import msgspec
import pytest
from hypothesis import given
from hypothesis import strategies as st

from backend_patch.script import parse_answer
from loadgen.engine.answers import Answer, Wanted, answer_seed, as_text, generated, scripted
from loadgen.engine.reader import AnswerReader, ArgumentsDelta, CallDelta, Delta, TextDelta

CALL = '{"text": "Look.", "tool": "bash", "args": {"command": "ls ü"}}'


def read(answer: Answer, step: int = 1) -> list[Delta]:
    reader = AnswerReader(answer)
    deltas: list[Delta] = []
    for tokens in [*range(step, answer.tokens, step), answer.tokens]:
        deltas += reader.advance(tokens)
    return deltas


def test_the_same_prompt_and_seed_say_the_same() -> None:
    seed = answer_seed(b"prompt", 0, 0)
    assert generated(Wanted(500), seed) == generated(Wanted(500), answer_seed(b"prompt", 0, 0))
    others = {answer_seed(b"other", 0, 0), answer_seed(b"prompt", 1, 0), answer_seed(b"prompt", 0, 1)}
    assert seed not in others
    assert len({generated(Wanted(500), each).text for each in others}) == 3


@pytest.mark.parametrize(
    ("wanted", "tokens", "reason"),
    [
        (Wanted(50, ignore_eos=True), 50, "length"),
        (Wanted(50, exact_tokens=7), 7, "stop"),
        (Wanted(50, exact_tokens=50), 50, "stop"),
        (Wanted(50, exact_tokens=51), 50, "length"),
        (Wanted(3), 3, "length"),
        (Wanted(90_000, min_tokens=80_000), 80_000, "stop"),
    ],
)
def test_lengths(wanted: Wanted, tokens: int, reason: str) -> None:
    answer = generated(wanted, seed=1)
    assert (answer.tokens, answer.finish_reason) == (tokens, reason)
    assert len(answer.text) == 4 * tokens, "one piece of four bytes a token"


def test_usual_answers_vary_around_the_mean_of_the_traces() -> None:
    lengths = [generated(Wanted(100_000), seed).tokens for seed in range(400)]
    assert 130 < sum(lengths) / len(lengths) < 210
    assert min(lengths) >= 8


def test_a_scripted_answer_is_exact() -> None:
    answer = scripted(parse_answer(CALL), Wanted(100), seed=0)
    assert answer.text == "Look."
    assert [(call.use.name, call.use.arguments) for call in answer.complete_calls] == [
        ("bash", '{"command": "ls ü"}')
    ]
    assert answer.finish_reason == "tool_calls"


def test_filler_makes_up_the_length_asked() -> None:
    asked = parse_answer('{"text": "Look.", "tool": "bash", "output_tokens": 60}')
    answer = scripted(asked, Wanted(100), seed=0)
    assert answer.tokens == 60
    assert answer.text.startswith("Look.")
    assert len(answer.complete_calls) == 1
    assert scripted(parse_answer(CALL), Wanted(100, exact_tokens=50), seed=0).tokens == 50


def test_an_empty_script_answer_still_says_something() -> None:
    assert scripted(parse_answer("{}"), Wanted(100), seed=0).tokens == 1


def test_a_stop_string_cuts_the_text_but_not_its_tokens() -> None:
    answer = scripted(parse_answer('{"text": "one STOP two", "tool": "x"}'), Wanted(100, stop=["STOP"]), 0)
    assert (answer.text, answer.stop_reason, answer.finish_reason) == ("one ", "STOP", "stop")
    assert answer.tokens == 2
    assert answer.calls == ()
    assert read(answer) == [TextDelta("one ")]


def test_the_first_stop_string_wins_and_min_tokens_protects() -> None:
    asked = parse_answer('{"text": "aaaabbbbccccbbbb"}')
    assert scripted(asked, Wanted(100, stop=["cccc", "bbbb"]), 0).stop_reason == "bbbb"
    late = scripted(asked, Wanted(100, min_tokens=2, stop=["bbbb"]), 0)
    assert late.text == "aaaabbbbcccc"


def test_a_call_cut_by_the_limit_is_raw_text() -> None:
    answer = scripted(parse_answer(CALL), Wanted(8), seed=0)
    assert answer.finish_reason == "length"
    assert answer.complete_calls == []
    assert answer.text.startswith('Look.<tool_call>\n{"name": ')


def test_without_tool_calls_everything_is_text() -> None:
    answer = as_text(scripted(parse_answer(CALL), Wanted(100), seed=0))
    assert answer.calls == ()
    assert answer.finish_reason == "stop"
    assert answer.text.endswith("</tool_call>")


@given(st.text(max_size=40), st.text(max_size=40), st.integers(1, 7))
def test_a_stream_shows_what_the_whole_answer_says(text: str, argument: str, step: int) -> None:
    asked = {"text": text.replace("\0", ""), "tools": [{"name": "f", "args": {"a": argument}}] * 2}
    answer = scripted(parse_answer(msgspec.json.encode(asked).decode()), Wanted(1000), seed=0)
    deltas = read(answer, step)

    assert "".join(each.text for each in deltas if isinstance(each, TextDelta)) == answer.text
    assert [each.index for each in deltas if isinstance(each, CallDelta)] == [0, 1]
    for index, call in enumerate(answer.complete_calls):
        pieces = [each.text for each in deltas if isinstance(each, ArgumentsDelta) and each.index == index]
        assert "".join(pieces) == call.use.arguments
        assert msgspec.json.decode(call.use.arguments) == {"a": argument}

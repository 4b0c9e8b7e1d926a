"""What a scripted answer looks like to a model, and how it is made as long as it should be."""

import json
import re
from dataclasses import dataclass, field

from hypothesis import given
from hypothesis import strategies as st

from backend_patch.emulator.markup import lengthened, render_answer, render_forced
from backend_patch.script import ScriptedAnswer, parse_answer

CALLS = '{"text": "Look.", "tools": [{"name": "bash", "args": {"a":  1.0}}, {"name": "ü\\"", "args": {}}]}'


@dataclass(frozen=True)
class WordVocabulary:
    """A token is a word with its blanks in front, or a mark."""

    words: list[str] = field(default_factory=lambda: [" one", " two"])

    def count(self, text: str) -> int:
        return len(re.findall(r"\s*\w+|\s*[^\w\s]|\s+$", text))


def test_calls_are_hermes_markup_with_the_characters_of_the_script() -> None:
    answer = parse_answer(CALLS)
    assert render_answer(answer.text, answer.calls) == (
        'Look.<tool_call>\n{"name": "bash", "arguments": {"a":  1.0}}\n</tool_call>\n'
        '<tool_call>\n{"name": "ü\\"", "arguments": {}}\n</tool_call>'
    )


def test_forced_calls_have_no_text_and_nothing_between_them() -> None:
    assert render_forced(parse_answer(CALLS).calls) == (
        '<tool_call>\n{"name": "bash", "arguments": {"a":  1.0}}\n</tool_call>'
        '<tool_call>\n{"name": "ü\\"", "arguments": {}}\n</tool_call>'
    )


@given(st.text(), st.lists(st.tuples(st.text(min_size=1), st.dictionaries(st.text(), st.integers()))))
def test_a_reader_finds_the_calls_again(text: str, calls: list[tuple[str, dict[str, int]]]) -> None:
    tools = [{"name": name, "args": arguments} for name, arguments in calls]
    answer = parse_answer(json.dumps({"text": text, "tools": tools}))
    rendered = render_answer(answer.text, answer.calls)
    assert rendered.startswith(text)
    found = re.findall(r"<tool_call>\n(.*?)\n</tool_call>", rendered, re.DOTALL)
    expected = [{"name": name, "arguments": arguments} for name, arguments in calls]
    assert [json.loads(each) for each in found] == expected


def test_filler_goes_between_text_and_calls() -> None:
    vocabulary = WordVocabulary()
    answer = parse_answer(CALLS)
    written = vocabulary.count(render_answer(answer.text, answer.calls))
    long = lengthened(answer, written + 4, vocabulary, seed=1)
    assert re.fullmatch(r"Look\.( one| two){3}<tool_call>.*", long, re.DOTALL)
    assert vocabulary.count(long) + 1 == written + 4, "and one that ends it"
    assert lengthened(answer, written + 4, vocabulary, seed=1) == long


def test_a_longer_answer_stays_as_it_is() -> None:
    answer = ScriptedAnswer(text="one two three")
    assert lengthened(answer, 2, WordVocabulary(), seed=1) == "one two three"

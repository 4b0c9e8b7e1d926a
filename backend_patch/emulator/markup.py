"""A scripted answer as the text that a model emits for it: Hermes markup, for vLLM's ``hermes`` parser.

Where a request forces calls (``tool_choice``), a grammar has the model write JSON in place of the markup,
without any text. Arguments keep the characters of the script. A call follows the text with nothing between
them, because the parser takes all that comes before a call for the content. Pure; knows tokens only through
``Vocabulary``.
"""

import json
from collections.abc import Sequence
from random import Random
from typing import Protocol

from backend_patch.script import ScriptedAnswer, ToolUse

END_TOKENS = 1
"""An answer that ends by itself has its end-of-turn token for the last; ``usage`` counts it."""


class Vocabulary(Protocol):
    """What lengthening an answer takes of the served model's tokenizer."""

    @property
    def words(self) -> Sequence[str]:
        """Each with its blank in front, each one token wherever it stands."""

    def count(self, text: str) -> int: ...


def render_answer(text: str, calls: Sequence[ToolUse]) -> str:
    return text + "\n".join(render_call(call) for call in calls)


def render_required(calls: Sequence[ToolUse]) -> str:
    """As ``tool_choice: required`` has it written, without any text."""
    each = (f'{{"name": {_quoted(call.name)}, "parameters": {call.arguments}}}' for call in calls)
    return f"[{', '.join(each)}]"


def render_call(call: ToolUse) -> str:
    return f'<tool_call>\n{{"name": {_quoted(call.name)}, "arguments": {call.arguments}}}\n</tool_call>'


def lengthened(answer: ScriptedAnswer, tokens: int, vocabulary: Vocabulary, seed: int) -> str:
    """The markup of ``answer``, its text filled up so that the whole has that many tokens with the last
    one, which ends it. Filler goes before the calls: what follows a call is lost to the client."""
    missing = tokens - END_TOKENS - vocabulary.count(render_answer(answer.text, answer.calls))
    filler = Random(seed).choices(vocabulary.words, k=max(0, missing))
    return render_answer(answer.text + "".join(filler), answer.calls)


def _quoted(name: str) -> str:
    return json.dumps(name, ensure_ascii=False)

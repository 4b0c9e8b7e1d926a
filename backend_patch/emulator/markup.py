"""A scripted answer as the text that a model emits for it: Hermes markup, for vLLM's ``hermes`` parser.

Where a request forces calls (``tool_choice``), a grammar lets the model write nothing else. Arguments
have the characters of the script. A call follows the text with nothing between them, because the parser takes
all that comes before a call for the content. Pure; knows tokens only through ``Vocabulary``.
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


def render_forced(calls: Sequence[ToolUse]) -> str:
    """As the grammar of vLLM 0.32 for Hermes has it (``tool_parsers/structural_tag_registry.py``): no text,
    and nothing between two calls."""
    return "".join(render_call(call) for call in calls)


def render_call(call: ToolUse) -> str:
    name = json.dumps(call.name, ensure_ascii=False)
    return f'<tool_call>\n{{"name": {name}, "arguments": {call.arguments}}}\n</tool_call>'


def lengthened(answer: ScriptedAnswer, tokens: int, vocabulary: Vocabulary, seed: int) -> str:
    """The markup of ``answer``, its text filled up so that the whole has that many tokens with the last
    one, which ends it. Filler goes before the calls: what follows a call is lost to the client."""
    missing = tokens - END_TOKENS - vocabulary.count(render_answer(answer.text, answer.calls))
    filler = Random(seed).choices(vocabulary.words, k=max(0, missing))
    return render_answer(answer.text + "".join(filler), answer.calls)

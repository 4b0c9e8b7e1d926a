"""Reads an answer as its tokens come: what becomes visible to a streaming client, and when.

Text shows as soon as its characters are whole; a tool call shows its name when its arguments begin and
then the arguments piece by piece, as vLLM's tool parsers stream them.
"""

from codecs import IncrementalDecoder, getincrementaldecoder
from dataclasses import dataclass

from loadgen.engine.answers import Answer, CallSpan
from loadgen.engine.tokens import TOKEN_BYTES


@dataclass(frozen=True, slots=True)
class TextDelta:
    text: str


@dataclass(frozen=True, slots=True)
class CallDelta:
    """The call begins."""

    index: int
    name: str


@dataclass(frozen=True, slots=True)
class ArgumentsDelta:
    index: int
    text: str


Delta = TextDelta | CallDelta | ArgumentsDelta


class AnswerReader:
    def __init__(self, answer: Answer) -> None:
        self._answer = answer
        self._at = 0
        self._decoder = _decoder()

    def advance(self, tokens: int) -> list[Delta]:
        """What the first ``tokens`` tokens show that fewer did not."""
        start, self._at = self._at, tokens * TOKEN_BYTES
        deltas: list[Delta] = []
        if text := self._decode(start, 0, self._answer.text_end):
            deltas.append(TextDelta(text))
        for index, call in enumerate(self._answer.calls):
            if self._at > call.start:
                deltas += self._advance_call(index, call, start)
        return deltas

    def _advance_call(self, index: int, call: CallSpan, start: int) -> list[Delta]:
        if self._at < call.arguments_start:
            return []
        deltas: list[Delta] = []
        if start < call.arguments_start:
            deltas.append(CallDelta(index, call.use.name))
            self._decoder = _decoder()
        if text := self._decode(start, call.arguments_start, call.arguments_end):
            deltas.append(ArgumentsDelta(index, text))
        return deltas

    def _decode(self, start: int, low: int, high: int) -> str:
        """Characters completed between ``start`` and here, of the bytes from ``low`` to ``high``."""
        begin, end = max(start, low), min(self._at, high)
        if begin >= end:
            return ""
        return self._decoder.decode(self._answer.body[begin:end].replace(b"\0", b""))


def _decoder() -> IncrementalDecoder:
    return getincrementaldecoder("utf-8")("replace")

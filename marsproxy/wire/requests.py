"""A light parse of a request body: what scheduling needs, nothing else.

Contract (``read_request``): never raises, whatever the bytes; ``None`` means "not understood, pass it
through untouched".
"""

from collections.abc import Sequence
from dataclasses import dataclass

from marsproxy.core.evidence import Schema, TurnEvidence

Headers = Sequence[tuple[bytes, bytes]]
"""As ASGI gives them: lower-case names, latin-1 bytes, order and repetitions kept."""


@dataclass(frozen=True, slots=True)
class ParsedRequest:
    schema: Schema
    evidence: TurnEvidence
    model: str | None
    is_streaming: bool
    asks_usage: bool
    """The answer will carry usage without our help (every unary answer, responses, messages)."""
    max_tokens: int | None
    samples: int
    """``n``: answers asked for."""
    prompt_bytes: int
    """Bytes of the body that end up in the prompt, roughly: an estimate of tokens starts from it."""
    sets_priority: bool
    """The client chose a priority itself; ours must not replace it."""

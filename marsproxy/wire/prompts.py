"""Segments of a text prompt, for the completions API, which has no messages.

Owns where a prompt is cut. The cuts depend only on the text in front of them, so the segments of a prompt
reappear in every longer prompt that begins with it:

- before each mark with which a chat template opens a turn, else before each line that opens with a speaker
  or a step ("Observation:"), else after every CHUNK_CHARS;
- what remains behind the last cut is a segment as well, unless it only invites the model to go on
  ("<|im_start|>assistant", "Thought:"): the next prompt puts the answer there, and the segment would
  change. Any other rest stays, for it may be all that tells two prompts apart.
"""

import re
from array import array
from collections.abc import Iterator

from marsproxy.core.evidence import Digest
from marsproxy.wire.normal import digest_of

CHUNK_CHARS = 2048
CHUNK_TOKENS = 64
MAX_SEGMENTS = 4096
"""A prompt with more cuts is a document; the rest of it becomes one segment."""
MAX_INVITATION_CHARS = 64

_TEMPLATE_MARK = re.compile(
    r"<(?=\|(?:im_start|im_user|im_assistant|im_system|start_header_id|header_start|start|turn|user|assistant"
    r"|system|observation|tool)\|?>|start_of_turn>|｜(?:User|Assistant)｜>)|\[(?=/?INST\])"
)
_SPEAKER_LINE = re.compile(
    r"\n(?=(?:#+ ?)?(?:human|user|assistant|ai|bot|system|question|answer|thought|action|action input"
    r"|observation|instruction|input|response|task|step \d+)\b[^\n]{0,8}:)",
    re.IGNORECASE,
)
_INVITATION = re.compile(r"(?:[:>\]]|assistant|model|bot|ai)\s*\Z", re.IGNORECASE)


def prompt_digests(prompt: object) -> tuple[Digest, ...]:
    """Of a string, a list of strings, token ids, or a list of those; () for anything else."""
    if isinstance(prompt, str):
        return tuple(digest_of(segment.encode()) for segment in segments(prompt))
    if not isinstance(prompt, list) or not prompt:
        return ()
    if all(type(token) is int for token in prompt):
        return tuple(_token_digests(prompt))
    if len(prompt) == 1:
        return prompt_digests(prompt[0])
    # Several prompts in one request are a batch, not a conversation: each is one whole.
    return tuple(digest_of(b"".join(prompt_digests(single))) for single in prompt[:MAX_SEGMENTS])


def prompt_count(prompt: object) -> int:
    is_batch = isinstance(prompt, list) and prompt and not isinstance(prompt[0], int)
    return len(prompt) if is_batch and isinstance(prompt, list) else 1


def segments(text: str) -> list[str]:
    cuts = _cuts(text)
    parts = [
        text[start:end] for start, end in zip([0, *cuts], [*cuts, len(text)], strict=True) if end > start
    ]
    if len(parts) > 1 and _is_invitation(parts[-1]):
        parts.pop()
    return parts


def _cuts(text: str) -> list[int]:
    for mark in (_TEMPLATE_MARK, _SPEAKER_LINE):
        cuts = [match.start() for match in _first_matches(mark, text)]
        if cuts:
            return cuts
    return list(range(CHUNK_CHARS, len(text), CHUNK_CHARS))[:MAX_SEGMENTS]


def _first_matches(mark: re.Pattern[str], text: str) -> Iterator[re.Match[str]]:
    for match, _ in zip(mark.finditer(text), range(MAX_SEGMENTS), strict=False):
        yield match


def _is_invitation(rest: str) -> bool:
    return len(rest) <= MAX_INVITATION_CHARS and _INVITATION.search(rest) is not None


def _token_digests(tokens: list[int]) -> Iterator[Digest]:
    try:
        packed = array("Q", tokens)
    except OverflowError:  # a negative id, or one beyond 64 bits: the backend will refuse it
        return
    for start in range(0, len(packed), CHUNK_TOKENS):
        yield digest_of(packed[start : start + CHUNK_TOKENS].tobytes())

"""Mooncake's request traces: ``{timestamp (ms), input_length, output_length, hash_ids}``, one request a line.

The trace has no session ids. A request is taken for a later turn of the session whose last prompt
is its longest proper prefix by ``hash_ids`` (each id stands for 512 tokens and for all before it), if
that prefix is more than the block every request shares; else it opens a session. Pauses between the
turns of a session become ``think_s``, less nothing: the trace does not say how long the answer took.
"""

from collections.abc import Iterator
from dataclasses import dataclass, field
from pathlib import Path

import msgspec

from loadgen.errors import WorkloadError
from loadgen.trace.lines import BadLines, numbered_lines, parse_line
from loadgen.trace.own import check_at_least
from loadgen.workload import Session, Turn

BLOCK_TOKENS = 512
"""Tokens behind one hash id (Mooncake's FAST'25 trace release)."""
LEAST_SHARED_BLOCKS = 2
"""One shared block is a common system prompt, not yet a conversation."""


class Request(msgspec.Struct, frozen=True):
    timestamp: float
    input_length: int
    output_length: int
    hash_ids: list[int] = []


@dataclass(slots=True)
class Conversation:
    requests: list[Request] = field(default_factory=list)


def parse_request(line: bytes) -> Request:
    request = msgspec.json.decode(line, type=Request)
    check_at_least("timestamp", request.timestamp, 0)
    check_at_least("input_length", request.input_length, 1)
    check_at_least("output_length", request.output_length, 1)
    return request


def read(path: Path, bad_lines: BadLines) -> Iterator[Session]:
    requests: list[Request] = []
    for number, line in numbered_lines(path):
        try:
            requests.append(parse_line(path, number, line, parse_request))
        except WorkloadError as error:
            bad_lines.report(error)
    requests.sort(key=lambda request: request.timestamp)
    start_ms = requests[0].timestamp if requests else 0.0
    for i, conversation in enumerate(conversations(requests)):
        yield to_session(f"mooncake-{i}", conversation, start_ms)


def conversations(requests: list[Request]) -> list[Conversation]:
    found: list[Conversation] = []
    open_by_blocks: dict[tuple[int, ...], Conversation] = {}
    for request in requests:
        blocks = tuple(request.hash_ids)
        conversation = take_longest_prefix(open_by_blocks, blocks)
        if conversation is None:
            conversation = Conversation()
            found.append(conversation)
        conversation.requests.append(request)
        open_by_blocks[full_blocks(request, blocks)] = conversation
    return found


def full_blocks(request: Request, blocks: tuple[int, ...]) -> tuple[int, ...]:
    """The last id may cover a part of a block only, which the next turn fills and so renames."""
    return blocks[: request.input_length // BLOCK_TOKENS]


def take_longest_prefix(
    open_by_blocks: dict[tuple[int, ...], Conversation], blocks: tuple[int, ...]
) -> Conversation | None:
    for length in range(len(blocks), LEAST_SHARED_BLOCKS - 1, -1):
        if (conversation := open_by_blocks.pop(blocks[:length], None)) is not None:
            return conversation
    return None


def to_session(name: str, conversation: Conversation, start_ms: float) -> Session:
    requests = conversation.requests
    turns = []
    for i, request in enumerate(requests):
        before = requests[i - 1] if i else None
        after = requests[i + 1] if i + 1 < len(requests) else None
        known = before.input_length + before.output_length if before else 0
        turns.append(
            Turn(
                new_tokens=max(1, request.input_length - known),
                output_tokens=request.output_length,
                think_s=(after.timestamp - request.timestamp) / 1000 if after else None,
            )
        )
    return Session(id=name, turns=turns, arrival_s=(requests[0].timestamp - start_ms) / 1000)

"""One answer from those of several schedulers.

Owns what it means when data parallel ranks answer differently: a session's blocks are on the ranks that
served it, and an operation goes to all of them. It must not know how they are reached.
"""

from collections.abc import Iterable, Sequence
from typing import TypeVar

import msgspec

from backend_patch.protocol import KvAnswer, KvStatus

T = TypeVar("T")


def merge_batches(ranks: Sequence[Sequence[KvAnswer]]) -> list[KvAnswer]:
    """Each operation's answers of all ranks, in the order of the operations."""
    return [merge(answers) for answers in zip(*ranks, strict=True)]


def merge(answers: Sequence[KvAnswer]) -> KvAnswer:
    """Ranks that know nothing of the session do not count where another does; where those that do
    disagree, the operation was done in part."""
    known = [answer for answer in answers if answer.status is not KvStatus.MISSING]
    if not known:
        return answers[0]
    statuses = {answer.status for answer in known}
    return msgspec.structs.replace(
        known[0],
        status=statuses.pop() if len(statuses) == 1 else KvStatus.CLIPPED,
        blocks=sum(answer.blocks for answer in known),
        tokens=sum(answer.tokens for answer in known),
        expires_in_ms=first(answer.expires_in_ms for answer in known),
        reason=first(answer.reason for answer in known),
    )


def first(values: Iterable[T | None]) -> T | None:
    return next((value for value in values if value is not None), None)

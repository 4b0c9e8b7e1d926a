"""One answer from those of several ranks."""

import pytest

from backend_patch.protocol import KvAnswer, KvOp, KvStatus
from backend_patch.rank_answers import merge, merge_batches

ACCEPTED, CLIPPED, REJECTED, MISSING = KvStatus


def answer(status: KvStatus, blocks: int = 0, reason: str | None = None, session: str = "s") -> KvAnswer:
    return KvAnswer(status, session, KvOp.PIN, blocks=blocks, tokens=16 * blocks, reason=reason)


@pytest.mark.parametrize(
    ("answers", "merged"),
    [
        ([answer(MISSING), answer(MISSING)], answer(MISSING)),
        ([answer(MISSING), answer(ACCEPTED, 5)], answer(ACCEPTED, 5)),
        ([answer(ACCEPTED, 2), answer(ACCEPTED, 5)], answer(ACCEPTED, 7)),
        ([answer(REJECTED, reason="budget"), answer(MISSING)], answer(REJECTED, reason="budget")),
        ([answer(ACCEPTED, 2), answer(REJECTED, reason="budget")], answer(CLIPPED, 2, "budget")),
        ([answer(ACCEPTED, 2), answer(CLIPPED, 3, "budget")], answer(CLIPPED, 5, "budget")),
        ([answer(CLIPPED, 3)], answer(CLIPPED, 3)),
    ],
)
def test_merge(answers: list[KvAnswer], merged: KvAnswer) -> None:
    """Blocks add up; disagreement of those that know the session is a part done."""
    assert merge(answers) == merged


def test_batches_keep_the_order_of_operations() -> None:
    first = [answer(ACCEPTED, 1, session="a"), answer(MISSING, session="b")]
    second = [answer(MISSING, session="a"), answer(ACCEPTED, 2, session="b")]
    assert merge_batches([first, second]) == [first[0], second[1]]
    assert merge_batches([first]) == first


def test_a_rank_that_leaves_one_out_is_not_hidden() -> None:
    with pytest.raises(ValueError, match="shorter"):
        merge_batches([[answer(ACCEPTED)], []])

"""Runs of blocks: what covers a text, how a run is split, in which order idle ones are reused."""

from loadgen.engine.extents import Chain, Extent, FreeQueue


def chain_of(*ranges: tuple[int, int]) -> Chain:
    chain = Chain("text")
    chain.extents = [Extent(chain, lo, hi) for lo, hi in ranges]
    return chain


def covered(chain: Chain, start: int, limit: int) -> tuple[int, list[tuple[int, int, int]]]:
    """Where the cover ends, and its parts by the number of their extent."""
    parts: list[tuple[Extent, int, int]] = []
    end = chain.cover(start, limit, parts)
    return end, [(chain.extents.index(extent), lo, hi) for extent, lo, hi in parts]


def test_a_cover_ends_at_the_first_gap_or_the_limit() -> None:
    chain = chain_of((0, 3), (3, 5), (6, 9))
    assert covered(chain, 0, 100) == (5, [(0, 0, 3), (1, 3, 5)])
    assert covered(chain, 1, 4) == (4, [(0, 1, 3), (1, 3, 4)])
    assert covered(chain, 5, 100) == (5, [])
    assert covered(chain, 0, 0) == (0, [])


def test_of_two_that_hold_a_block_the_one_computed_first_is_found() -> None:
    chain = chain_of((2, 4), (0, 6))
    assert covered(chain, 0, 100) == (6, [(1, 0, 2), (0, 2, 4), (1, 4, 6)])


class Requester:
    is_lease = False

    def __init__(self, *extents: Extent) -> None:
        self.extents = list(extents)


def test_a_split_is_seen_by_all_who_hold_the_extent() -> None:
    chain = chain_of((0, 8), (8, 9))
    first, last = chain.extents
    one, other = Requester(first, last), Requester(first)
    first.holders, first.users = [one, other], 2
    upper = first.split(5)

    assert (first.hi, upper.lo, upper.hi, upper.users) == (5, 5, 8, 2)
    assert one.extents == [first, upper, last]
    assert other.extents == [first, upper]
    assert chain.extents == [first, upper, last]


def test_the_queue_keeps_its_order_through_inserts_and_removals() -> None:
    chain = chain_of((0, 1), (1, 2), (2, 3), (3, 4))
    a, b, c, d = chain.extents
    queue = FreeQueue()
    queue.append(a)
    queue.append(b)
    queue.insert(c, after=a)
    queue.insert(d, after=b)
    assert list(queue) == [c, a, d, b]
    queue.remove(c)
    queue.remove(d)
    assert (list(queue), queue.first) == ([a, b], a)

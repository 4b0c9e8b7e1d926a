"""What the patch's headroom means to the policy: numbers to one reading, endings of leases to events.

Pure translation: it reads no socket and no clock. Blocks become tokens here and nowhere else, and ranks
of one server become one backend, as with ``/metrics``.
"""

from collections.abc import Iterable, Iterator
from dataclasses import dataclass

from backend_patch.protocol import Capabilities, Ending, Headroom, LeaseEnding, RankHeadroom
from marsproxy.core.events import BackendObserved, KvReclaimed, LeaseExpired, LeaseResumed

LeaseEvent = LeaseResumed | KvReclaimed | LeaseExpired


def reading_of(
    backend: str, headroom: Headroom, capabilities: Capabilities, kv_tokens: int | None = None
) -> BackendObserved:
    """One reading; what no rank uses and no lease holds is free.

    ``kv_used_ratio`` is what requests hold, as in the simulator: leases are counted beside it. Stock vLLM's
    gauge has no leases to leave out.

    Args:
        kv_tokens: size of the pool where it is configured instead of read.

    Raises:
        ValueError: there is no rank, or none has a block.
    """
    ranks = headroom.ranks
    total = sum(rank.blocks for rank in ranks)
    if total <= 0:
        raise ValueError("no blocks")
    used = sum(rank.blocks - rank.free_blocks - rank.leased_blocks for rank in ranks)
    return BackendObserved(
        backend,
        kv_tokens_total=kv_tokens or sum(rank.blocks * rank.block_tokens for rank in ranks),
        kv_used_ratio=min(1.0, max(0.0, used / total)),
        running=sum(rank.running for rank in ranks),
        waiting=sum(rank.waiting for rank in ranks),
        preemptions_total=sum(rank.preemptions_total for rank in ranks),
        prefix_queries_total=sum(rank.prefix_queries_total for rank in ranks),
        prefix_hits_total=sum(rank.prefix_hits_total for rank in ranks),
        takes_hints=True,
        kv_leased_tokens=sum(rank.leased_blocks * rank.block_tokens for rank in ranks),
        kv_swap_tokens_per_s=capabilities.host_tokens_per_s if capabilities.has_host_tier else None,
    )


def event_of(backend: str, ending: LeaseEnding) -> LeaseEvent | None:
    """None for one that does not say what it must."""
    match ending.how:
        case Ending.RESUMED if ending.hit_tokens is not None:
            return LeaseResumed(ending.session, backend, ending.tokens, ending.hit_tokens)
        case Ending.RECLAIMED:
            return KvReclaimed(ending.session, backend, ending.tokens)
        case Ending.EXPIRED:
            return LeaseExpired(ending.session, backend, ending.tokens)
    return None


@dataclass(slots=True)
class _Rank:
    seq: int
    """Of the latest ending that was read."""
    step: int


class EndingsCursor:
    """Up to where the endings of each rank were read.

    The first reading of a rank only finds out where it is: what ended before was before our time. A rank
    whose counts go back was started anew and counts from 1 again; all that it has to tell is then still to
    come, so the next reading asks for it from the beginning.
    """

    def __init__(self) -> None:
        self._ranks: dict[int, _Rank] = {}

    @property
    def after(self) -> str:
        """For the query; "" before the first reading."""
        return ",".join(f"{rank}:{known.seq}" for rank, known in self._ranks.items())

    def forget(self) -> None:
        self._ranks.clear()

    def has_restarted(self, headroom: Headroom) -> bool:
        return any(self._is_anew(rank) for rank in headroom.ranks)

    def take(self, headroom: Headroom) -> tuple[list[LeaseEnding], int]:
        """New endings in the order of each rank, and how many were lost on the way."""
        taken: list[LeaseEnding] = []
        missed = 0
        for rank in headroom.ranks:
            known = self._ranks.get(rank.rank)
            if known is None or self._is_anew(rank):
                self._ranks[rank.rank] = _Rank(rank.last_seq if known is None else 0, rank.step)
                continue
            known.step = rank.step
            new = list(_later(rank.endings, known.seq))
            reached = new[-1].seq if new else max(known.seq, rank.last_seq)
            missed += reached - known.seq - len(new)
            known.seq = reached
            taken += new
        return taken, missed

    def _is_anew(self, rank: RankHeadroom) -> bool:
        known = self._ranks.get(rank.rank)
        return known is not None and (rank.last_seq < known.seq or rank.step < known.step)


def _later(endings: Iterable[LeaseEnding], seq: int) -> Iterator[LeaseEnding]:
    for ending in sorted(endings, key=lambda each: each.seq):
        if ending.seq > seq:
            seq = ending.seq
            yield ending

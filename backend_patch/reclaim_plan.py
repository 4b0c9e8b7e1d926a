"""What to take from which lease so that a number of blocks becomes free.

Owns the plan; it changes nothing. Two leases may hold one block (a shared system prompt), and so may
requests. All who hold a block hold those before it too, so as one walks a lease from its tail, once a
request is met there is nothing more to win. A block that only leases hold is won with the last of them, and
a lease is cut no further than the last block that is won.
"""

from collections.abc import Collection, Iterable
from dataclasses import dataclass, field

from backend_patch.holders import Holders
from backend_patch.lease import Lease


@dataclass(slots=True)
class Cut:
    lease: Lease
    blocks: int = 0
    """From its tail, up to the last one that becomes free."""


@dataclass(slots=True)
class Plan:
    missing: int
    """Blocks that are still not free when all is done; 0 is enough."""
    cuts: list[Cut] = field(default_factory=list)
    _shared: dict[int, list[tuple[Cut, int]]] = field(default_factory=dict)
    """By block that several leases hold: who of them was reached, and how far he must be cut."""

    def add(self, lease: Lease, held: Holders[int], wanted: Collection[int]) -> None:
        """Go from the lease's tail as far as something is to be won and not all is found."""
        cut = Cut(lease)
        self.cuts.append(cut)
        for depth, block in enumerate(reversed(lease.blocks), 1):
            block_id = block.block_id
            leases = held.of(block_id)
            if self.missing <= 0 or block.ref_cnt > leases or block_id in wanted:
                return
            if leases == 1:
                cut.blocks = depth
                self.missing -= 1
            else:
                self._add_shared(block_id, leases, cut, depth)

    def _add_shared(self, block_id: int, leases: int, cut: Cut, depth: int) -> None:
        reached = self._shared.setdefault(block_id, [])
        reached.append((cut, depth))
        if len(reached) == leases:
            self.missing -= 1
            for each, far in reached:
                each.blocks = max(each.blocks, far)


def plan_reclaim(missing: int, willing: Iterable[Lease], held: Holders[int], wanted: Collection[int]) -> Plan:
    """``willing`` in the order in which they give way; ``wanted`` are blocks that whoever asks will refer to
    himself, so that nothing is won by taking them."""
    plan = Plan(missing)
    for lease in willing:
        plan.add(lease, held, wanted)
        if plan.missing <= 0:
            break
    return plan

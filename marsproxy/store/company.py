"""How many replicas there are to share with, when a replica loses the others.

Those that a replica knows of are too few where it loses them twice in short: who comes back first begins a
new order by itself, and the others have not come back to it yet.
"""

REUNION_S = 60.0
"""After losing each other replicas are together again within seconds of the store's return; one that has not
come by then is not counted on. Chosen."""


class Company:
    """
    Args:
        expected: replicas, for who has never met any.
    """

    def __init__(self, expected: int) -> None:
        self._count = expected
        self._lost_s: float | None = None
        """When they were lost last; None before that, and before there were any."""
        self._has_met = False

    def met(self) -> None:
        """There is an order, and whoever takes part in it is known."""
        self._has_met = True

    def lose(self, members: int, now: float) -> int:
        """Of ``members`` that were known, itself included; returns how many to share with."""
        is_again = self._lost_s is not None and now - self._lost_s <= REUNION_S
        remembered = self._count if is_again or not self._has_met else 1
        self._count, self._lost_s = max(1, members, remembered), now
        return self._count

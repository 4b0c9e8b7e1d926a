"""Corrects the share of a pool that is promised by what is seen: hits of continuations and preemptions."""


class Correction:
    """One backend's. A factor on the target, 1 until there is a reason."""

    def __init__(self) -> None:
        self.factor = 1.0

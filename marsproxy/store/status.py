"""What a replica shows of its place among the others."""

from dataclasses import dataclass
from enum import Enum


class StoreState(Enum):
    MEMORY = "memory"
    """There are no others, and there is no store."""
    JOINING = "joining"
    """Not there yet, at the start or after having been given up: what happens waits."""
    TOGETHER = "together"
    ALONE = "alone"
    """The store does not answer: this replica goes on by itself, with its share."""


@dataclass(slots=True)
class StoreStatus:
    """Counters run from the start of the process."""

    state: StoreState = StoreState.MEMORY
    members: int = 1
    """As this replica knows them, itself included."""
    is_leader: bool = True
    lag_s: float | None = None
    """From a record's place in the order to its being applied here, of the latest one that another replica
    told. None before there is one."""
    appends: int = 0
    """Batches that have their place in the order."""
    records: int = 0
    """Applied, of all replicas."""
    failed_records: int = 0
    """That could not be read or applied: each is an error in the code."""
    commands: int = 0
    """Sent to the store; what its scripts call inside is not counted."""
    separations: int = 0
    """Times that the store was given up, and this replica went on alone."""
    given_up: int = 0
    """Times that the others gave this replica up, and it joined anew."""
    adoptions: int = 0
    """Times that the others' state took the place of this replica's own."""
    foundings: int = 0
    """Times that this replica's state became that of all."""
    checkpoint_bytes: int | None = None
    """Size of the latest checkpoint that this replica wrote."""
    checkpoint_s: float | None = None
    """What it took to make."""

    @property
    def is_ready(self) -> bool:
        return self.state is not StoreState.JOINING

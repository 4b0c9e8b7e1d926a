"""The link between the accelerator and the host's memory: when each transfer ends.

One transfer at a time in each direction, both directions at once, as two copy engines of a GPU do. Owns
only times: which blocks go where is the offloading connector's business. Reads no clock.
"""

from dataclasses import dataclass
from enum import Enum, auto


class Direction(Enum):
    LOAD = auto()
    """From the host's memory to the accelerator."""
    STORE = auto()


@dataclass(frozen=True, slots=True)
class Transfer:
    job: int
    request_id: str
    direction: Direction
    ends_s: float


class HostLink:
    def __init__(self, tokens_per_s: float) -> None:
        self.loaded_tokens = 0
        self.stored_tokens = 0
        self._tokens_per_s = tokens_per_s
        self._free_at_s = dict.fromkeys(Direction, 0.0)
        self._running: dict[int, Transfer] = {}

    def start(self, now: float, job: int, request_id: str, direction: Direction, tokens: int) -> None:
        ends_s = max(now, self._free_at_s[direction]) + tokens / self._tokens_per_s
        self._free_at_s[direction] = ends_s
        self._running[job] = Transfer(job, request_id, direction, ends_s)
        if direction is Direction.LOAD:
            self.loaded_tokens += tokens
        else:
            self.stored_tokens += tokens

    def finished(self, now: float) -> list[Transfer]:
        """Those that have ended since the last call."""
        done = [each for each in self._running.values() if each.ends_s <= now]
        for each in done:
            del self._running[each.job]
        return done

    def ends_s(self, jobs: set[int]) -> float:
        """When the last of these that still run will have ended; 0.0 if none runs."""
        return max((self._running[job].ends_s for job in jobs if job in self._running), default=0.0)

    @property
    def next_end_s(self) -> float | None:
        return min((each.ends_s for each in self._running.values()), default=None)

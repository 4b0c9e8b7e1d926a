"""Commands that are over and can still be asked for.

Owns their number, age and bytes of output: past one of these bounds the oldest ending is forgotten.
"""

from collections import OrderedDict
from collections.abc import Callable

from gateway.exec_record import Exec
from gateway.limits import Limits


class EndedExecs:
    def __init__(self, limits: Limits, on_forgotten: Callable[[Exec], None]) -> None:
        self._limits = limits
        self._on_forgotten = on_forgotten
        self._kept_bytes = 0
        self._execs: OrderedDict[str, Exec] = OrderedDict()
        """Oldest ending first."""

    def __len__(self) -> int:
        return len(self._execs)

    @property
    def kept_bytes(self) -> int:
        """Of output, on their hosts."""
        return self._kept_bytes

    def add(self, record: Exec) -> None:
        self._execs[record.id] = record
        self._kept_bytes += record.kept_bytes

    def find(self, exec_id: str) -> Exec | None:
        return self._execs.get(exec_id)

    def expire(self, now: float, active: int) -> None:
        """``active``: how many commands there are beside these."""
        oldest_s = now - self._limits.exec_ttl_s
        while self._execs:
            record = next(iter(self._execs.values()))
            assert record.ended_at_s is not None
            if record.ended_at_s > oldest_s and not self._are_too_many(active):
                return
            self.forget(record)

    def forget(self, record: Exec) -> None:
        del self._execs[record.id]
        self._kept_bytes -= record.kept_bytes
        self._on_forgotten(record)

    def all(self) -> list[Exec]:
        return list(self._execs.values())

    def _are_too_many(self, active: int) -> bool:
        count = len(self._execs) + active
        return count > self._limits.max_execs or self._kept_bytes > self._limits.max_spool_bytes

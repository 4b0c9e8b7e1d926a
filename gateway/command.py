"""What to run and where, checked and complete: the shape that ``submission`` makes and ``execs`` walks.

Owns the shape alone.
"""

from collections.abc import Hashable
from dataclasses import dataclass

from gateway.admission import Ask
from gateway.host import RunOrder


@dataclass(frozen=True, slots=True)
class Command:
    tenant: str
    session: str
    host: str
    order: RunOrder
    """Without its ``record``, which is written when it starts."""
    command_digest: str
    """Hex SHA-256 of the command text."""
    program: str | None
    """Name of what it runs; None when that is not plain to see."""
    signature: str | None
    """By which what it takes is learned; None likewise."""
    queue_timeout_s: float
    cpu: float
    memory_mb: float | None
    """Asked for or predicted; None when nothing is known."""
    labels: dict[str, str]
    family: Hashable | None = None
    priority: int = 0
    expected_s: float | None = None
    body_digest: str | None = None
    """Of the request, when it has a key."""

    def ask(self) -> Ask:
        return Ask(
            id=self.order.exec_id,
            session=(self.tenant, self.session),
            family=self.family,
            cpu=self.cpu,
            memory_mb=self.memory_mb,
            expected_s=self.expected_s,
            priority=self.priority,
            queue_timeout_s=self.queue_timeout_s,
        )

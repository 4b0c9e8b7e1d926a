"""Walks commands through their states."""

from gateway.exec_record import Exec
from gateway.host import Chunk, TerminalSize
from gateway.protocol import ExecStatus, Scope, StreamName


class Execs:
    async def get(self, tenant: str, exec_id: str) -> Exec:
        """Also one that only the store remembers. Raises Refusal 404, or 503 ``adopting``."""
        raise NotImplementedError

    async def status(self, record: Exec) -> ExecStatus:
        """With the beginning of its output once it is over."""
        raise NotImplementedError

    async def wait_ended(self, record: Exec, timeout_s: float) -> None:
        raise NotImplementedError

    async def wait_step(self, record: Exec, steps: int, timeout_s: float) -> None:
        """Returns when it has left more than ``steps`` states behind, or after the timeout: for events.
        ``position`` changes without a step."""
        raise NotImplementedError

    def position(self, record: Exec) -> int | None:
        raise NotImplementedError

    def cancel(self, record: Exec, reason: str) -> None:
        raise NotImplementedError

    async def read(
        self, record: Exec, stream: StreamName, offset: int, limit: int, wait_s: float
    ) -> Chunk:
        """From any offset, at any time: of one that waits for its start, too. ``is_eof`` once nothing can
        follow. Raises Refusal: 410 ``output_forgotten``, 503 ``host_lost``."""
        raise NotImplementedError

    async def write_stdin(self, record: Exec, data: bytes, offset: int, *, is_eof: bool) -> int:
        """Next offset. Waits for the start of a queued one. Raises Refusal: 409 ``stdin_gap`` (message has the
        next offset), 409 ``exec_over``, 409 ``not_started``, 503 ``host_lost``."""
        raise NotImplementedError

    async def signal(self, record: Exec, name: str, scope: Scope) -> bool:
        """False when it is over. Raises Refusal: 409 ``not_started``, 503 ``host_lost``."""
        raise NotImplementedError

    async def resize(self, record: Exec, size: TerminalSize) -> None:
        """The same."""
        raise NotImplementedError

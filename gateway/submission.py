"""From an exec request to a command on its way, at most once per Idempotency-Key."""

from gateway.exec_record import Exec
from gateway.protocol import ExecRequest
from gateway.sessions import Session


class Submission:
    async def submit(self, session: Session, request: ExecRequest, idempotency_key: str | None) -> Exec:
        """Raises Refusal. Cancelling it leaves either a command on its way or none and no key."""
        raise NotImplementedError

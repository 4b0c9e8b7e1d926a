"""What a host's settings demand around its commands, as a gateway says it in ``hello``.

Owns the names. Must not know how it is done (``session_uids``, ``sandboxes``). It counts for the connection
that said it: gateways that share a host may demand different things.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

NO_SANDBOX = "none"
BUBBLEWRAP = "bwrap"
SANDBOXES = (NO_SANDBOX, BUBBLEWRAP)

LEAST_UID = 1000
"""Below are the users of the system itself (login.defs, UID_MIN)."""
LARGEST_UID = 2**31 - 1
"""More than that is negative to some programs."""


@dataclass(frozen=True)
class Isolation:
    session_uids: tuple[int, int] | None = None
    """The first and the last of the users that are handed out, one to each session. None: none are."""
    sandbox: str = NO_SANDBOX
    """One of ``SANDBOXES``."""

    @property
    def is_any(self) -> bool:
        return self.session_uids is not None or self.sandbox != NO_SANDBOX

    def on_wire(self) -> dict[str, Any]:
        uids = None if self.session_uids is None else list(self.session_uids)
        return {"session_uids": uids, "sandbox": self.sandbox}

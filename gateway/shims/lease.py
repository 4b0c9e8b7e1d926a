"""A lease of the gateway for a command that runs here: asked for, kept, given back.

Owns the calls and the bounds of waiting. It must not know how the command is run. A gateway that was
restarted has forgotten its leases; then another is taken without waiting, since the command runs already.
"""

from __future__ import annotations

import json
import time
from collections.abc import Callable

from gateway.shims.calls import Calls, GatewayFault, Refused

TTL_S = 10.0
"""A shim that cannot renew for so long is taken for gone with its whole machine; one that was merely killed
has its lease given back at once."""
RENEWAL_S = 3.0
"""Three times in that: two may get lost."""
_LONGEST_POLL_S = 55.0
"""Below the longest wait that the gateway allows (60 s)."""


class NoRoom(GatewayFault):
    """There was none within the time that was asked for."""


class Lease:
    def __init__(self, calls: Calls, ask: dict[str, object], queue_timeout_s: float) -> None:
        """``ask``: session, cpu, program, command_sha256, labels."""
        self._calls = calls
        self._ask = {**ask, "ttl_s": TTL_S, "queue_timeout_s": queue_timeout_s}
        self._queue_timeout_s = queue_timeout_s
        self.id: str | None = None
        self.is_held = False
        self.changed: Callable[[str | None], None] = lambda _: None
        """Told the id that it has from now on; None when it was given back."""

    def take(self) -> None:
        """Returns when it is held. Raises NoRoom, GatewayFault."""
        deadline_s = time.monotonic() + self._queue_timeout_s
        self.ask()  # Without waiting, so that its id is known if we are killed while it is queued.
        while not self.is_held:
            left_s = deadline_s - time.monotonic()
            self.look(wait_s=max(0.1, left_s))
            if left_s <= 0 and not self.is_held:
                self.give_back()
                raise NoRoom("there was no room in time")

    def ask(self) -> None:
        """Held or queued afterwards. Raises NoRoom, GatewayFault."""
        try:
            found = self._calls.json("POST", "/v1/leases", self._ask)
        except Refused as refused:
            if refused.status == 429:
                raise NoRoom(str(refused)) from refused
            raise
        self.id, self.is_held = str(found.get("id")), found.get("state") == "held"
        self.changed(self.id)

    def look(self, wait_s: float = 0.0) -> None:
        """Whether it is held by now. Raises NoRoom, GatewayFault."""
        wait_s = min(wait_s, _LONGEST_POLL_S)
        found = self._calls.json("GET", f"/v1/leases/{self.id}?wait={wait_s:.3f}", wait_s=wait_s)
        self.is_held = found.get("state") == "held"
        if found.get("state") not in ("held", "queued"):
            raise NoRoom(str(found.get("reason")))

    def renew(self, rss_mb: float | None = None) -> None:
        """``rss_mb``: of what runs under it, None if that is not known. Never raises: what runs goes on."""
        if self.id is None:
            return
        try:
            known = {} if rss_mb is None else {"rss_mb": round(rss_mb, 1)}
            self._calls.json("PUT", f"/v1/leases/{self.id}", {"ttl_s": TTL_S, **known})
        except Refused as refused:
            if refused.status in (404, 409):
                self._take_another()
        except GatewayFault:
            return

    def give_back(self, ending: dict[str, object] | None = None) -> None:
        """With ``exit_code``, ``cpu_s`` and ``max_rss_mb`` as far as they are known. Never raises."""
        if self.id is None:
            return
        try:
            self._calls.json("DELETE", f"/v1/leases/{self.id}", ending or {})
        except GatewayFault:
            return  # It ends by itself.
        finally:
            self.is_held = False
            self.changed(None)

    def _take_another(self) -> None:
        try:
            self.ask()
        except GatewayFault:
            return


def ending(exit_code: int | None, cpu_s: float | None, max_rss_mb: float | None) -> bytes:
    """As ``ended_by`` reads it."""
    known = {"exit_code": exit_code, "cpu_s": cpu_s, "max_rss_mb": max_rss_mb}
    return json.dumps({name: value for name, value in known.items() if value is not None}).encode()


def ended_by(word: bytes) -> dict[str, object]:
    found = json.loads(word)
    return found if isinstance(found, dict) else {}

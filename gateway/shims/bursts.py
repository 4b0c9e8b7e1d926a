"""When an interactive shell works, and so shall hold a lease.

Theory of operation. The commands of an interactive shell are not known one by one; what is seen is the input
that comes for it and the CPU time of what it runs. It *rests* until a line of input comes. The line is
withheld while a lease is *asked* for, so that work begins when there is room for it; then it is passed on and
the shell is *busy*, until nothing it started has used the CPU for a while, and the lease is given back. A
shell that begins to work by itself (a job in the background) is asked for a lease while it works. Without an
answer of the gateway, or without room in time, input is passed on all the same: a terminal must not hang.

Owns these states. It must not know terminals or processes; time is an argument.
"""

from __future__ import annotations

from collections.abc import Callable

from gateway.shims.calls import GatewayFault
from gateway.shims.lease import RENEWAL_S, Lease, NoRoom

RESTING, ASKING, BUSY = "resting", "asking", "busy"
BUSY_LOOK_S = 0.03
"""Between two looks while it works or waits for room: what a lease is held too long, at least."""
RESTING_LOOK_S = 0.25
_QUIET_S = 0.06
"""Without any process below it, a shell that uses no CPU for so long waits for input."""
_QUIET_BELOW_S = 1.0
"""With processes below it, which may wait for a disk or a network meanwhile."""
_BLIND_S = 5.0
"""After a fault of the gateway, for which it is not asked again: each attempt keeps a terminal waiting."""
_LOOKS_OF_WORK = 2
MOST_WITHHELD_BYTES = 64 << 10
LINE_ENDS = (b"\n", b"\r")
_INTERRUPTS = (b"\x03", b"\x04", b"\x1a", b"\x1c")
"""Ctrl-C, Ctrl-D, Ctrl-Z, Ctrl-backslash: never wait for room."""


class Use:
    """Of the shell and all below it, at one moment."""

    def __init__(
        self, ticks: int, *, is_running: bool, has_children: bool, rss_mb: float | None = None
    ) -> None:
        self.ticks = ticks
        """CPU time so far, in the kernel's clock ticks."""
        self.is_running = is_running
        """One of them is running, or waits for a disk."""
        self.has_children = has_children
        self.rss_mb = rss_mb
        """Resident memory."""


class Bursts:
    def __init__(self, make_lease: Callable[[bytes | None], Lease], queue_s: float) -> None:
        """``make_lease``: for the text of a command, as far as it is known."""
        self._make_lease = make_lease
        self._queue_s = queue_s
        self._lease: Lease | None = None
        self._withheld = b""
        self._passed = b""
        self._asked_until_s = 0.0
        self._blind_until_s = 0.0
        self._renewed_at_s = 0.0
        self._worked_at_s = 0.0
        self._ticks: int | None = None
        self._looks_of_work = 0
        self.state = RESTING

    def __repr__(self) -> str:
        return f"<Bursts {self.state}, {len(self._withheld)} withheld, lease: {self._lease is not None}>"

    @property
    def look_s(self) -> float:
        return RESTING_LOOK_S if self.state == RESTING else BUSY_LOOK_S

    @property
    def takes_more(self) -> bool:
        return len(self._withheld) < MOST_WITHHELD_BYTES

    def accept(self, data: bytes, now: float) -> None:
        """Input for the shell; ``passed`` says what of it may go there."""
        self._withheld += data
        if any(each in data for each in _INTERRUPTS):
            self._work(now)
        elif self.state == RESTING and any(each in data for each in LINE_ENDS):
            self._asked_until_s = now + self._queue_s
            self.state = ASKING
            self._ask(now, self._withheld.rstrip(b"\r\n"))
        if self.state != ASKING:
            self._pass()

    def before_line(self, use: Use) -> None:
        """A line of input has come: a shell that does not run and has nothing below it waits for it at its
        prompt. What it did before is over then, however short ago, and the line is work of its own."""
        if self.state == BUSY and not use.is_running and not use.has_children:
            self.rest()

    def passed(self) -> bytes:
        """Once."""
        passed, self._passed = self._passed, b""
        return passed

    def look(self, use: Use, now: float) -> None:
        """About every ``look_s``."""
        works = use.is_running or (self._ticks is not None and use.ticks > self._ticks)
        self._ticks = use.ticks
        if works:
            self._worked_at_s = now
        if self.state == ASKING:
            self._look_for_room(now)
        elif self.state == BUSY:
            self._keep(now, use.rss_mb)
            quiet_s = _QUIET_BELOW_S if use.has_children else _QUIET_S
            if now - self._worked_at_s >= quiet_s:
                self.rest()
        else:
            self._looks_of_work = self._looks_of_work + 1 if works else 0
            if self._looks_of_work >= _LOOKS_OF_WORK:
                self._ask(now, None)
                self._work(now)

    def rest(self) -> None:
        """The lease is given back."""
        self.state, self._looks_of_work = RESTING, 0
        if self._lease is not None:
            self._lease.give_back()
            self._lease = None

    def _ask(self, now: float, text: bytes | None) -> None:
        """Afterwards it is busy, unless it is queued."""
        if now < self._blind_until_s:
            self._work(now)
            return
        self._lease = self._make_lease(text)
        try:
            self._lease.ask()
        except GatewayFault as fault:
            self._fail(now, fault)
            return
        if self._lease.is_held:
            self._work(now)

    def _look_for_room(self, now: float) -> None:
        assert self._lease is not None
        try:
            self._lease.look()
        except GatewayFault as fault:
            self._fail(now, fault)
            return
        if self._lease.is_held or now >= self._asked_until_s:
            self._work(now)

    def _keep(self, now: float, rss_mb: float | None) -> None:
        if self._lease is None or now - self._renewed_at_s < RENEWAL_S:
            return
        self._renewed_at_s = now
        self._lease.renew(rss_mb)

    def _fail(self, now: float, fault: GatewayFault) -> None:
        self._lease = None
        if not isinstance(fault, NoRoom):
            self._blind_until_s = now + _BLIND_S
        self._work(now)

    def _work(self, now: float) -> None:
        """What was withheld goes on; a lease that is queued is held when there is room."""
        self.state = BUSY
        self._worked_at_s = self._renewed_at_s = now
        self._pass()

    def _pass(self) -> None:
        self._passed += self._withheld
        self._withheld = b""
